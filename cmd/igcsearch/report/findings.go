package report

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"igcsearch/search"
	"igcsearch/search/analysis"
	"igcsearch/search/strategy"
	"igcsearch/space"
)

// Findings are what package analysis found in a study, with the names of its networks.
type Findings struct {
	analysis.Findings
	posterior *analysis.Posterior // of the split that is shown; nil if the scores say too little
	results   Results             // with the split that is shown
	networks  []Network           // of the samples
	choosing  Results             // with the split that chose the best
	chosen    []analysis.Summary  // on that split; nil where it is the one that is shown
	pooled    bool                // in the choice
	pictures  int                 // that an accuracy is measured on
	rounds    []strategy.Round    // of a race
	dropped   []int               // after how many seeds the race dropped the network; 0: it did not
	// Warnings say what makes the findings less than they seem.
	Warnings []string
}

// Analyze says what the results of a study tell of its split. The best is chosen by the split choose, "" for the one
// that decides. Findings.Best is −1 if no trial is done. Of a race it needs the History of the trials.
func Analyze(r Results, choose string) (Findings, error) {
	choosing, err := r.Showing(cmp.Or(choose, r.Study.DecidingSplit()))
	if err != nil {
		return Findings{}, err
	}
	a := Findings{results: r, networks: r.Networks(), rounds: r.RaceRounds(), choosing: choosing}
	samples := r.Samples()
	if choosing.Study.Split == r.Study.Split {
		a.Findings = analysis.Analyze(samples)
	} else {
		by := analysis.Analyze(choosing.Samples())
		a.chosen, a.pooled = by.Summaries, by.Pooled
		if by.Best >= 0 && len(samples[by.Best].Scores) == 0 {
			return a, fmt.Errorf("%s, the best on %s, has no accuracy on the %s pictures", a.label(by.Best),
				choosing.SplitPictures(), r.Study.Split)
		}
		a.Findings = analysis.AnalyzeChosen(samples, by.Best)
	}
	for _, sample := range samples {
		a.pictures = max(a.pictures, sample.Pictures)
	}
	a.posterior = r.Posterior()
	if r.Study.OfPairs() {
		a.compareSameSize()
	}
	dropped := DroppedAfter(a.rounds)
	for _, n := range a.networks {
		a.dropped = append(a.dropped, dropped[n.System])
	}
	a.Warnings = a.warnings()
	return a, nil
}

// label names the network of a sample.
func (a Findings) label(sample int) string { return a.networks[sample].Label() }

// withScores counts the samples that have a score.
func (a Findings) withScores() (n int) {
	for _, m := range a.Summaries {
		if m.N > 0 {
			n++
		}
	}
	return n
}

// compareSameSize restricts the paper's questions about M to pairs of one budget. Of other pairs the larger would win
// by its size.
func (a *Findings) compareSameSize() {
	var order []int // samples with a score, the highest mean first
	for i, m := range a.Summaries {
		if m.N > 0 {
			order = append(order, i)
		}
	}
	slices.SortStableFunc(order, func(i, j int) int { return cmp.Compare(a.Summaries[j].Mean, a.Summaries[i].Mean) })
	a.Paper = nil
	for _, isOther := range []func(space.Pair) bool{
		func(p space.Pair) bool { return p.M == 1 },
		func(p space.Pair) bool { return p.L == 1 && p.M != 2 },
	} {
		two, other, ok := a.bestOfSameSize(order, isOther)
		if !ok || slices.ContainsFunc(a.Paper, func(c analysis.Comparison) bool { return c.A == two && c.B == other }) {
			continue // L1M1 has M = 1 and L = 1
		}
		a.Paper = append(a.Paper, a.Compare(two, other))
	}
	analysis.Correct(a.Paper)
}

// bestOfSameSize returns the best sample of M = 2 that has another of its size, and the best such other.
func (a *Findings) bestOfSameSize(order []int, isOther func(space.Pair) bool) (two, other int, ok bool) {
	for _, i := range order {
		for _, j := range order {
			if i == j || a.Samples[i].Pair.M != 2 || !isOther(a.Samples[j].Pair) {
				continue
			}
			if len(BySize([]Network{a.networks[i], a.networks[j]}, a.results.BlockParams)) == 1 {
				return i, j, true
			}
		}
	}
	return 0, 0, false
}

// BySize groups networks of one budget, by rising parameters.
func BySize(networks []Network, params func(Network) int) (groups [][]Network) {
	networks = slices.Clone(networks)
	slices.SortStableFunc(networks, func(a, b Network) int { return cmp.Compare(params(a), params(b)) })
	for _, n := range networks {
		if k := len(groups); k == 0 || !space.SameBudget(params(groups[k-1][0]), params(n)) {
			groups = append(groups, nil)
		}
		last := &groups[len(groups)-1]
		*last = append(*last, n)
	}
	return groups
}

// sameSize reports whether the networks with an accuracy are pairs of one budget.
func (r Results) sameSize() bool {
	scored := slices.DeleteFunc(r.Networks(), func(n Network) bool { return len(n.Accuracies) == 0 })
	return r.Study.OfPairs() && len(BySize(scored, r.BlockParams)) == 1
}

// Posterior is what the accuracies say of the true means of the networks, in the order of Networks. It is nil if they
// say too little, and for a study with axes, whose curve over M is another one at each point.
func (r Results) Posterior() *analysis.Posterior {
	if len(r.Study.Axes) > 0 {
		return nil
	}
	return analysis.NewPosterior(r.Samples(), r.sameSize())
}

// Samples are the networks of the study in the order of Networks, with the accuracies of the study's split.
func (r Results) Samples() []analysis.Sample {
	var samples []analysis.Sample
	for i, t := range r.Trials {
		if i == 0 || r.Trials[i-1].System != t.System || r.Trials[i-1].At != t.At {
			sample := analysis.Sample{Costs: analysis.Costs{Params: float64(t.Params),
				MultiplyAdds: float64(t.MultiplyAdds)}}
			if r.Study.OfPairs() {
				sample.Pair = t.System.Pair()
			}
			samples = append(samples, sample)
		}
		sample := &samples[len(samples)-1]
		if percent, ok := r.Accuracy(t.Trial); ok {
			_, sample.Pictures = t.Last.Correct(r.Study.Split)
			sample.Scores = append(sample.Scores, analysis.Score{Seed: t.Seed, Percent: percent})
		}
		if t.Status == search.Diverged {
			sample.Diverged++
		}
	}
	return samples
}

func (a Findings) warnings() []string {
	list := a.results.Warnings()
	add := func(is bool, format string, args ...any) {
		if is {
			list = append(list, fmt.Sprintf(format, args...))
		}
	}
	some := func(names []string) string { return strings.Join(names, ", ") }
	diverged, epochs := a.endings()
	add(len(diverged) > 0, "diverged trials are left out, so that the means of %s are too high", some(diverged))
	add(epochs > 1, "its trials were trained for different numbers of epochs")

	seeds := 0
	var single, welch []string
	for i, m := range a.Summaries {
		seeds = max(seeds, m.N)
		if m.N == 1 {
			single = append(single, a.label(i))
		}
		if a.Against[i].Test == analysis.WelchTest {
			welch = append(welch, a.label(i))
		}
	}
	if len(single) == a.withScores() && len(single) > 1 {
		single = []string{"all of them"}
	}
	add(len(single) > 0, "one seed only (n = 1), which decides nothing: %s", some(single))
	add(len(welch) > 0, "compared by Welch's test, because fewer than two seeds are common with the best: %s",
		some(welch))
	add(a.Pooled && seeds == 2, "2 seeds: the check of the spreads finds little, so that a best pair of a large spread"+
		" may be called worse more often than in 5 %% of studies: at least 3 seeds are needed")
	if a.posterior != nil && a.results.Study.OfPairs() && !a.results.sameSize() {
		var sizes []int
		for i, m := range a.Summaries {
			if m.N > 0 {
				sizes = append(sizes, a.results.BlockParams(a.networks[i]))
			}
		}
		add(true, "P(best) expects no curve over M: its pairs have %d to %d parameters, more than 10 %% apart, so that"+
			" they differ by more than M",
			slices.Min(sizes), slices.Max(sizes))
	}

	study := a.results.Study
	add(study.Strategy == search.StrategyRace || study.Strategy == search.StrategyPeak,
		"%s chose by the %s pictures which trials were continued: the p values do not account for that",
		study.Strategy, study.DecidingSplit())
	add(study.Strategy == search.StrategyHalving,
		"halving chose at %s which trials were continued: the p values do not account for that",
		a.results.Agreement().At())
	if _, classes := study.Shape(); classes > 0 { // the database does not know those of a folder
		list = append(list, a.results.AtChance(classes)...)
	}
	add(study.Split == search.SplitTest && a.chosen == nil && study.Validation == 0,
		"no validation pictures are held out: the test pictures decide, which makes the accuracy of the best on them"+
			" too high")
	add(a.chosen == nil && study.Validation > 0,
		"the best is chosen by the %s pictures that show it, which makes its accuracy on them too high", study.Split)
	add(!a.KnowsMultiplyAdds(), "the multiply–adds of some networks are not stored: no Pareto front is shown")
	return list
}

// endings returns the networks that have a diverged trial, and how many different numbers of epochs the done trials
// have.
func (a Findings) endings() (diverged []string, epochs int) {
	numbers := map[int]bool{}
	for _, t := range a.results.Trials {
		if t.Status == search.Diverged && !slices.Contains(diverged, t.System.Label()) {
			diverged = append(diverged, t.System.Label())
		}
		if _, ok := a.results.Accuracy(t.Trial); ok {
			numbers[t.Last.Number] = true
		}
	}
	return diverged, len(numbers)
}
