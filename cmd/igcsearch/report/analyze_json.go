package report

import (
	"math"
	"strconv"

	"igcsearch/search/analysis"
)

// The numbers of an analysis in JSON; null is what cannot be told.
type (
	meanJSON struct {
		N    int      `json:"n"`
		Mean *float64 `json:"mean"` // percent
		Std  *float64 `json:"std"`
		Low  *float64 `json:"low"` // of the 95 % interval
		High *float64 `json:"high"`
	}

	comparisonJSON struct {
		A          string   `json:"a"`
		B          string   `json:"b"`
		Difference float64  `json:"difference"` // of a to b, percentage points
		Low        *float64 `json:"low"`
		High       *float64 `json:"high"`
		Test       string   `json:"test"` // additive, paired, welch; empty: none
		Degrees    *float64 `json:"degrees_of_freedom"`
		P          *float64 `json:"p"`
		Holm       *float64 `json:"p_holm"`
		Detectable *float64 `json:"detectable"` // points, with power 0.8
		Common     int      `json:"common_seeds"`
	}

	networkJSON struct {
		Network string `json:"network"`
		L       int    `json:"L,omitempty"`
		M       int    `json:"M,omitempty"`
		meanJSON
		Params       *float64         `json:"params"` // of the network; null: not stored
		MultiplyAdds *float64         `json:"multiply_adds"`
		Choosing     *meanJSON        `json:"on_choosing_split"`             // null: it is the split that is shown
		Behind       *comparisonJSON  `json:"behind_the_best"`               // null: the best, or no result
		Verdict      analysis.Verdict `json:"verdict"`                       // empty: no result
		Dropped      int              `json:"dropped_after_seeds,omitempty"` // by the race
		Pareto       bool             `json:"pareto"`
		Best         *float64         `json:"p_best"` // null: too little is known, or it cannot be the best
		Band         *bandJSON        `json:"band"`   // under the model of p_best; null: too little is known
	}

	bandJSON struct {
		Mean             float64 `json:"mean"` // expected, percent
		Low              float64 `json:"low"`  // of the 95 % band of each mean
		High             float64 `json:"high"`
		SimultaneousLow  float64 `json:"simultaneous_low"` // of the 95 % band of all means at once
		SimultaneousHigh float64 `json:"simultaneous_high"`
	}

	posteriorJSON struct {
		Curve   bool     `json:"curve"`                    // the model expects a curve over log2 M
		Set     []string `json:"set"`                      // has 95 % of p_best, the most probable first
		Concave *float64 `json:"weight_of_concave_curves"` // null without a curve
	}

	// peakJSON is the answer of the search "peak", so far or at its end.
	peakJSON struct {
		Answer string   `json:"answer"`
		Seeds  int      `json:"seeds"`         // of the answer
		Margin float64  `json:"margin"`        // points
		Within *float64 `json:"within"`        // the probability that the answer is within the margin of the best
		Bound  *float64 `json:"loses_at_most"` // points, with a probability of 95 %
	}

	ruleJSON struct {
		Pooled  bool     `json:"pooled"` // the additive model is the test; else paired
		Why     string   `json:"why"`    // in words
		Largest *float64 `json:"largest_variance_share"`
		P       *float64 `json:"p_of_equal_spreads"`
		Level   float64  `json:"level_of_spreads"`
		Std     *float64 `json:"residual_std"` // of the additive model, points
		Degrees int      `json:"residual_degrees_of_freedom"`
		Correct string   `json:"correction"`
		Tells   float64  `json:"largest_detectable_that_tells"` // points
	}

	spreadJSON struct {
		Std      *float64 `json:"std"` // over seeds, points, pooled over the networks
		Degrees  *float64 `json:"degrees_of_freedom"`
		Pictured *float64 `json:"binomial_std_of_pictures"` // of the best's accuracy over drawn sets of pictures
		Pictures int      `json:"pictures"`
	}

	findingsJSON struct {
		Study     string           `json:"study"`
		Dataset   string           `json:"dataset"`
		Split     string           `json:"split"`     // that is shown and tested
		ChosenBy  string           `json:"chosen_by"` // the split that chose the best
		Alpha     float64          `json:"alpha"`
		Best      string           `json:"best"`
		Rule      ruleJSON         `json:"rule"`
		Spread    spreadJSON       `json:"spread"`
		Networks  []networkJSON    `json:"networks"`
		Paper     []comparisonJSON `json:"paper"`
		Posterior *posteriorJSON   `json:"posterior"` // null: too little is known
		Peak      *peakJSON        `json:"peak,omitempty"`
		Warnings  []string         `json:"warnings"`
	}
)

// known is nil for NaN, and rounds away what lies behind the digits of the counts.
func known(v float64) *float64 {
	if math.IsNaN(v) {
		return nil
	}
	v, _ = strconv.ParseFloat(strconv.FormatFloat(v, 'g', 9, 64), 64)
	return &v
}

// cost is nil for 0, an unknown cost.
func cost(v float64) *float64 {
	if v == 0 {
		return nil
	}
	return known(v)
}

func toMeanJSON(m analysis.Summary) meanJSON {
	return meanJSON{m.N, known(m.Mean), known(m.Std), known(m.Low), known(m.High)}
}

func (a Findings) comparisonJSON(c analysis.Comparison) comparisonJSON {
	return toComparisonJSON(c, a.label)
}

// toComparisonJSON names the samples of a comparison by label.
func toComparisonJSON(c analysis.Comparison, label func(sample int) string) comparisonJSON {
	return comparisonJSON{label(c.A), label(c.B), *known(c.Difference), known(c.Difference - c.Half),
		known(c.Difference + c.Half),
		string(c.Test), known(c.Degrees), known(c.P), known(c.Holm), known(c.Detectable), c.Common}
}

func (a Findings) networkJSON(i int) networkJSON {
	sample := a.Samples[i]
	j := networkJSON{Network: a.label(i), L: sample.Pair.L, M: sample.Pair.M, meanJSON: toMeanJSON(a.Summaries[i]),
		Params: cost(sample.Costs.Params), MultiplyAdds: cost(sample.Costs.MultiplyAdds),
		Verdict: a.Verdicts[i], Dropped: a.dropped[i], Pareto: a.Front[i]}
	if a.chosen != nil {
		m := toMeanJSON(a.chosen[i])
		j.Choosing = &m
	}
	if i != a.Best && a.Summaries[i].N > 0 {
		c := a.comparisonJSON(a.Against[i])
		j.Behind = &c
	}
	if p := a.posterior; p != nil && !math.IsNaN(p.Mean[i]) {
		one, all := p.Pointwise[i], p.Simultaneous[i]
		j.Best = known(p.Best[i])
		j.Band = &bandJSON{*known(p.Mean[i]), *known(one.Low), *known(one.High), *known(all.Low), *known(all.High)}
	}
	return j
}

func (a Findings) toJSON() findingsJSON {
	study := a.results.Study
	j := findingsJSON{Study: study.Name, Dataset: study.Dataset, Split: study.Split,
		ChosenBy: a.choosing.Study.Split, Alpha: *known(analysis.Alpha), Best: a.label(a.Best),
		Rule: ruleJSON{Pooled: a.Pooled, Why: a.rule(), Largest: known(a.Spreads.Share), P: known(a.Spreads.P),
			Level: analysis.SpreadAlpha,
			Std:   known(a.Model.Spread()), Degrees: a.Model.Degrees, Correct: "Holm", Tells: *known(a.Tells)},
		Spread:   spreadJSON{Std: known(a.Spread), Degrees: known(a.Degrees), Pictures: a.pictures},
		Networks: []networkJSON{}, Paper: []comparisonJSON{}, Warnings: append([]string{}, a.Warnings...)}
	if a.pictures > 0 {
		j.Spread.Pictured = known(a.pictureStd())
	}
	for i := range a.Samples {
		j.Networks = append(j.Networks, a.networkJSON(i))
	}
	for _, c := range a.Paper {
		j.Paper = append(j.Paper, a.comparisonJSON(c))
	}
	if p := a.posterior; p != nil {
		j.Posterior = &posteriorJSON{Curve: p.Curve, Concave: known(p.Concave)}
		for _, i := range p.Set {
			j.Posterior.Set = append(j.Posterior.Set, a.label(i))
		}
	}
	if b, ok := a.results.Belief(); ok && b.Leader >= 0 {
		j.Peak = &peakJSON{b.Systems[b.Leader].Label(), b.Seeds[b.Leader], b.Margin, known(b.Within), known(b.Bound)}
	}
	return j
}
