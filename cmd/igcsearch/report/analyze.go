package report

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"

	"igcsearch/search"
	"igcsearch/search/analysis"
	"igcsearch/search/strategy"
)

func (a Findings) caption() string {
	study := a.results.Study
	text := fmt.Sprintf("%s: accuracy on %s of %s, mean, standard deviation and 95 %% interval over n seeds%s",
		a.results.Title(), a.results.SplitPictures(), DatasetLabel(study.Dataset), a.results.draws()+a.results.trainedIn())
	if a.chosen != nil {
		text += fmt.Sprintf("; the best is chosen by %s, whose mean stands beside", a.choosing.SplitPictures())
	}
	return text
}

func (a Findings) header() []string {
	head, behind := []string{"mean (%)"}, "behind best"
	if a.chosen != nil {
		head, behind = []string{a.choosing.Study.Split + " (%)", a.results.Study.Split + " (%)"}, "behind chosen"
	}
	head = slices.Concat(a.results.NameHeader(), head, []string{"std", "95 % interval", "n"})
	if a.posterior != nil {
		head = append(head, "P(best)")
	}
	return append(head, behind, "p (Holm)", "<verdict")
}

// theBest is what the best is called: it was found on the pictures that are shown, or chosen on others.
func (a Findings) theBest() string {
	if a.chosen != nil {
		return "chosen"
	}
	return string(analysis.TheBest)
}

func (a Findings) rows() (rows [][]string) {
	for i, m := range a.Summaries {
		behind, p, verdict := "", "", string(a.Verdicts[i])
		if i == a.Best {
			verdict = a.theBest()
		}
		if m.N > 0 && i != a.Best {
			behind, p = withHalf(a.Against[i]), probability(a.Against[i].Holm)
			switch {
			case a.dropped[i] > 0:
				verdict = "dropped"
			case a.Verdicts[i] == analysis.TooLittle:
				verdict = "too little" // a line below says "to tell": the table of a paper is narrow
			}
		}
		row := a.results.Name(a.networks[i])
		if a.chosen != nil {
			row = append(row, decimals(a.chosen[i].Mean))
		}
		row = append(row, decimals(m.Mean), decimals(m.Std), interval(m), a.networks[i].N())
		if a.posterior != nil {
			row = append(row, WholePercent(a.posterior.Best[i]))
		}
		rows = append(rows, append(row, behind, p, verdict))
	}
	return rows
}

// who is theBest as a noun.
func (a Findings) who() string { return strings.Replace(a.theBest(), "chosen", "chosen one", 1) }

// rule says how pairs were compared, and why so.
func (a Findings) rule() string {
	tests := 0
	for _, c := range a.Against {
		if c.Test != analysis.Untested {
			tests++
		}
	}
	if tests == 0 {
		return "nothing is tested: no two of its networks have two seeds that differ"
	}
	holm := fmt.Sprintf("of freedom, p corrected by Holm for %s", Count(tests, "comparison"))
	s := a.Spreads
	why := "whether the spreads are equal cannot be told of fewer than three networks with common seeds"
	if !math.IsNaN(s.P) {
		says, limit := "the spreads seem unequal", "not more than"
		if a.Pooled {
			says, limit = "nothing says that the spreads are unequal", "more than"
		}
		why = fmt.Sprintf("%s: the largest variance, of %s, is %.0f %% of the sum, %s by Cochran's test, %s %g",
			says, a.label(s.Sample), 100*s.Share, pIs(s.P), limit, analysis.SpreadAlpha)
	}
	if a.Pooled {
		return fmt.Sprintf("by the additive model, network + seed, with one residual for all (%s points, %s %s),"+
			" because %s",
			decimals(a.Model.Spread()), Count(a.Model.Degrees, "degree"), holm, why)
	}
	return fmt.Sprintf("by paired t tests over common seeds (%s %s), because %s", a.degrees(), holm, why)
}

// degrees are those of the comparisons with the best, "2" or "2 to 4".
func (a Findings) degrees() string {
	low, high := math.Inf(1), math.Inf(-1)
	for _, c := range a.Against {
		if c.Test != analysis.Untested {
			low, high = min(low, c.Degrees), max(high, c.Degrees)
		}
	}
	text := func(v float64) string { return strconv.FormatFloat(math.Round(10*v)/10, 'f', -1, 64) }
	switch {
	case low == 1 && high == 1:
		return "1 degree"
	case low == high:
		return text(low) + " degrees"
	}
	return text(low) + " to " + text(high) + " degrees"
}

// pictureStd is the standard deviation, in points, of an accuracy like that of the best over drawn sets of as many
// pictures: binomial. It is NaN if their number is not known.
func (a Findings) pictureStd() float64 {
	p := a.Summaries[a.Best].Mean / 100
	return 100 * math.Sqrt(p*(1-p)/float64(a.pictures))
}

// fact is what the table does not hold: a word and a sentence.
type fact struct{ name, text string }

func (a Findings) facts() []fact {
	list := slices.Concat(a.bestFacts(), []fact{{"compared", a.rule()}}, a.verdictFacts(), a.spreadFacts(),
		a.posteriorFacts(), a.raceFacts(), a.halvingFacts(), a.peakFacts())
	for _, c := range a.Paper {
		list = append(list, a.paperFact(c))
	}
	return list
}

func (a Findings) bestFacts() []fact {
	how := "over the seeds that both have"
	if a.Pooled {
		how = "in the additive model"
	}
	summary, by := a.Summaries[a.Best], a.results
	if a.chosen != nil {
		summary, by, how = a.chosen[a.Best], a.choosing, "over the seeds that both have"
		if a.pooled {
			how = "in the additive model"
		}
	}
	text := fmt.Sprintf("%s: %s, on %s", a.label(a.Best), spellMean(summary), by.SplitPictures())
	if a.withScores() > 1 {
		text += "; it has the largest lead over its nearest rival, " + how
	}
	list := []fact{{a.theBest(), text}}
	if a.chosen != nil {
		list = append(list, fact{a.results.Study.Split, fmt.Sprintf("%s: %s, on %s, which had no part in the choice;"+
			" everything below is of these pictures", a.label(a.Best), spellMean(a.Summaries[a.Best]),
			a.results.SplitPictures())})
	}
	return list
}

// verdictFacts has a line for each verdict that some network has.
func (a Findings) verdictFacts() (list []fact) {
	verdicts := []analysis.Verdict{analysis.Better, analysis.Separated, analysis.NotSeparated, analysis.TooLittle}
	for _, v := range verdicts {
		var names []string
		least, most := math.Inf(1), 0. // detectable differences
		for i, c := range a.Against {
			if a.Verdicts[i] != v {
				continue
			}
			names = append(names, a.label(i))
			if !math.IsNaN(c.Detectable) {
				least, most = min(least, c.Detectable), max(most, c.Detectable)
			}
		}
		if len(names) == 0 {
			continue
		}
		text := fmt.Sprintf("%d of %d: %s (%s)", len(names), a.withScores()-1, strings.Join(names, ", "),
			a.verdictText(v, least, most))
		list = append(list, fact{string(v), text})
	}
	return list
}

// verdictText says what a verdict means, with the differences that its comparisons can find.
func (a Findings) verdictText(v analysis.Verdict, least, most float64) string {
	shown := fmt.Sprintf("%.1f points", most)
	if least < most {
		shown = fmt.Sprintf("%.1f to %.1f points", least, most)
	}
	switch v {
	case analysis.Better:
		return "significantly better than the " + a.who() + " on these pictures"
	case analysis.Separated:
		return "significantly worse than the " + a.who()
	case analysis.NotSeparated:
		return "which does not mean equal: 80 % of such studies find a difference of " + shown +
			", and fewer find a smaller one"
	}
	return a.tooLittle(shown)
}

// tooLittle says why too little can be told of some networks: they have too few seeds, or no test finds a difference
// that is small enough.
func (a Findings) tooLittle(shown string) string {
	var few []string
	tested := false
	for i, v := range a.Verdicts {
		switch {
		case v != analysis.TooLittle:
		case a.Summaries[i].N == 1:
			few = append(few, a.label(i)+" has one seed")
		case a.Samples[i].MostDiverged():
			few = append(few, "most seeds of "+a.label(i)+" diverged")
		default:
			tested = tested || !math.IsNaN(a.Against[i].Detectable)
		}
	}
	if tested {
		few = append(few, fmt.Sprintf("in 80 %% of such studies the test finds only differences of at least %s; to say"+
			" more it must find one of %.1f points, a tenth of the errors of the %s", shown, a.Tells, a.who()))
	}
	if len(few) == 0 {
		return "nothing could be tested"
	}
	return strings.Join(few, "; ")
}

func (a Findings) spreadFacts() []fact {
	if math.IsNaN(a.Spread) {
		return nil
	}
	study, of := a.results.Study, "all on the same "+a.results.Study.Split+" pictures"
	ownPictures := study.SplitPerSeed && study.Split == search.SplitValidation
	if ownPictures {
		of = "each seed on its own draw of validation pictures"
	} else if study.SplitPerSeed {
		of += ", each seed trained on its own draw of pictures"
	}
	text := fmt.Sprintf("%.2f points over seeds, pooled over the networks, %s", a.Spread, of)
	switch {
	case a.pictures > 0 && ownPictures:
		text += fmt.Sprintf("; the draw of %d validation pictures alone makes %.2f points of it at %.2f %% (binomial)",
			a.pictures, a.pictureStd(), a.Summaries[a.Best].Mean)
	case a.pictures > 0:
		text += fmt.Sprintf("; the choice of pictures alone, if %d others were drawn, adds %.2f points at %.2f %%"+
			" (binomial), which no interval here contains",
			a.pictures, a.pictureStd(), a.Summaries[a.Best].Mean)
	}
	return []fact{{"spread", text}}
}

// posteriorFacts say which networks may be the best, and how well the concave curves of the model fit.
func (a Findings) posteriorFacts() []fact {
	p := a.posterior
	if p == nil {
		return nil
	}
	candidates := 0
	fewest, most := math.MaxInt, 0 // seeds
	for i, best := range p.Best {
		if !math.IsNaN(best) {
			candidates++
			fewest, most = min(fewest, a.Summaries[i].N), max(most, a.Summaries[i].N)
		}
	}
	seeds := Count(most, "seed")
	if fewest < most {
		seeds = fmt.Sprintf("%d to %s", fewest, seeds)
	}
	of := Count(candidates, "network")
	if len(p.Best) > candidates {
		of = fmt.Sprintf("%d of %s (the rest: no result, or most trials diverged)", candidates,
			Count(len(p.Best), "network"))
	}
	var names []string
	for _, i := range p.Set {
		names = append(names, a.label(i)+" "+WholePercent(p.Best[i]))
	}
	is := fmt.Sprintf("with 95 %% the best of %s is among %d: %s", of, len(names), strings.Join(names, ", "))
	switch len(names) {
	case candidates:
		is = fmt.Sprintf("any of %s may be the best: %s", of, strings.Join(names, ", "))
	case 1:
		is = fmt.Sprintf("the best of %s is %s with %s", of, a.label(p.Set[0]), WholePercent(p.Best[p.Set[0]]))
	}
	list := []fact{{"P(best)", fmt.Sprintf("%s; under %s, from %s, on %s", is, PosteriorModel(p), seeds,
		a.results.SplitPictures())}}
	if p.Curve {
		have := "have"
		if p.HardlyConcave() {
			have = "hardly fit: they have"
		}
		list = append(list, fact{"curve", fmt.Sprintf("the concave curves of the model %s %s of its weight, with deviations"+
			" of single pairs below 0.3 of the spread", have, WholePercent(p.Concave))})
	}
	return list
}

// PosteriorModel says what the model of P(best) expects.
func PosteriorModel(p *analysis.Posterior) string {
	if p.Curve {
		return "a model of concave and smooth curves over log2 M"
	}
	return "a model in which the networks are unrelated"
}

func (a Findings) raceFacts() []fact {
	if len(a.rounds) == 0 {
		if a.results.Study.Strategy == search.StrategyRace {
			return []fact{{"race", "no round is finished"}}
		}
		return nil
	}
	last := a.rounds[len(a.rounds)-1]
	var left, dropped []string
	for _, system := range last.Left {
		left = append(left, system.Label())
	}
	for i, seeds := range a.dropped {
		if seeds > 0 {
			dropped = append(dropped, fmt.Sprintf("%s after %s", a.label(i), Count(seeds, "seed")))
		}
	}
	if len(dropped) == 0 {
		dropped = []string{"none"}
	}
	return []fact{{"race", fmt.Sprintf("left after %s: %s; dropped: %s; by %s", Count(last.Seeds, "seed"),
		strings.Join(left, ", "), strings.Join(dropped, ", "), strategy.RaceTest(a.results.Study.Race, a.rounds))}}
}

func (a Findings) halvingFacts() []fact {
	if a.results.Study.Strategy != search.StrategyHalving {
		return nil
	}
	return []fact{{"halving", a.results.Agreement().String()}}
}

// peakFacts has the answer of the search, which may be another network than the best of the table: the search minds
// how probable it is that a network is good enough.
func (a Findings) peakFacts() []fact {
	if a.results.Study.Strategy != search.StrategyPeak {
		return nil
	}
	says := a.results.Decide().Reason
	if b, ok := a.results.Belief(); ok && says == "" {
		says = fmt.Sprintf("the search goes on; so far, %v", &b)
	}
	if says == "" {
		says = "not every network has a result yet"
	}
	return []fact{{"peak", fmt.Sprintf("%s; by the %s pictures", says, a.results.Study.DecidingSplit())}}
}

// paperFact answers one of the paper's questions: M = 2 against M = 1 or L = 1.
func (a Findings) paperFact(c analysis.Comparison) fact {
	name := "M=2, M=1"
	if a.Samples[c.B].Pair.M != 1 {
		name = "M=2, L=1"
	}
	text := fmt.Sprintf("%s less %s: %s points", a.label(c.A), a.label(c.B), withHalf(c))
	if !math.IsNaN(c.P) {
		text += fmt.Sprintf(", %s, Holm-corrected %s", pIs(c.P), probability(c.Holm))
	}
	switch c.Test {
	case analysis.AdditiveTest:
		text += fmt.Sprintf(", additive model, %s of freedom", Count(int(c.Degrees), "degree"))
	case analysis.PairedTest:
		text += fmt.Sprintf(", paired over %s", Count(c.Common, "common seed"))
	case analysis.WelchTest:
		text += ", by Welch's test"
	default:
		text += ", not tested"
	}
	return fact{name, text}
}

// front is the table of the Pareto front.
func (a Findings) front() (header []string, rows [][]string) {
	header = []string{"<network", a.results.Study.Split + " (%)", "multiply–adds (10⁶)", "parameters"}
	for i, sample := range a.Samples {
		if !a.Front[i] {
			continue
		}
		rows = append(rows, []string{a.label(i), decimals(a.Summaries[i].Mean),
			fmt.Sprintf("%.2f", sample.Costs.MultiplyAdds/1e6), fmt.Sprintf("%.0f", sample.Costs.Params)})
	}
	return header, rows
}

func (a Findings) frontCaption() string {
	_, rows := a.front()
	text := fmt.Sprintf("Pareto front of accuracy on %s and multiply–adds: %d of %s", a.results.SplitPictures(),
		len(rows), Count(a.withScores(), "network"))
	others := "each of the others"
	switch a.withScores() - len(rows) {
	case 0:
		return text
	case 1:
		others = "the other one"
	}
	return text + "; for " + others + ", a network of the front is at least as accurate and needs no more multiply–adds"
}

// decimals is a number with two decimals, "–" if there is none.
func decimals(v float64) string {
	if math.IsNaN(v) {
		return "–"
	}
	return fmt.Sprintf("%.2f", v)
}

// WholePercent is a probability that was counted in a few thousand draws, which cannot show that it is 0 or 1. It is "–"
// if there is none.
func WholePercent(p float64) string {
	switch percent := math.Round(100 * p); {
	case math.IsNaN(p):
		return "–"
	case percent == 0:
		return "<1 %"
	case percent == 100:
		return ">99 %"
	default:
		return fmt.Sprintf("%.0f %%", percent)
	}
}

func interval(m analysis.Summary) string {
	if math.IsNaN(m.Low) {
		return "–"
	}
	return fmt.Sprintf("%.2f to %.2f", m.Low, m.High)
}

func spellMean(m analysis.Summary) string {
	if math.IsNaN(m.Low) {
		return fmt.Sprintf("%.2f %% of %s", m.Mean, Count(m.N, "seed"))
	}
	return fmt.Sprintf("%.2f %% (%s) of %s", m.Mean, interval(m), Count(m.N, "seed"))
}

// withHalf is a difference with the half width of its interval.
func withHalf(c analysis.Comparison) string {
	if math.IsNaN(c.Half) {
		return fmt.Sprintf("%+.2f", c.Difference)
	}
	return fmt.Sprintf("%+.2f ± %.2f", c.Difference, c.Half)
}

// pIs is a p value in words: "p = 0.012" or "p < 0.001".
func pIs(p float64) string {
	if p < 0.001 {
		return "p < 0.001"
	}
	return "p = " + probability(p)
}

func probability(p float64) string {
	switch {
	case math.IsNaN(p):
		return "–"
	case p < 0.001:
		return "<0.001"
	}
	return fmt.Sprintf("%.3f", p)
}

// tables are the means and the Pareto front.
func (a Findings) tables() (means, front *Table) {
	header, rows := a.front()
	return tableOf(a.header(), a.rows()), tableOf(header, rows)
}

// Print writes the findings in one of the formats table, json, markdown and latex.
func (a Findings) Print(stdout io.Writer, format string) (err error) {
	means, front := a.tables()
	var facts strings.Builder
	switch format {
	case "json":
		return JSON(stdout, a.toJSON())
	case "latex":
		_, err = io.WriteString(stdout, a.latex())
	case "markdown":
		for _, f := range a.facts() {
			fmt.Fprintf(&facts, "* %s: %s\n", f.name, markdownEscape.Replace(f.text))
		}
		_, err = fmt.Fprintf(stdout, "%s\n\n%s.\n\n%s", means.Markdown(), markdownEscape.Replace(a.caption()),
			facts.String())
		if err == nil && a.KnowsMultiplyAdds() {
			_, err = fmt.Fprintf(stdout, "\n%s\n\n%s.\n", front.Markdown(), a.frontCaption())
		}
	default:
		for _, f := range a.facts() {
			fmt.Fprintf(&facts, "%-20s%s\n", f.name, f.text)
		}
		_, err = fmt.Fprintf(stdout, "%s\n\n%s\n%s", a.caption(), means, facts.String())
		if err == nil && a.KnowsMultiplyAdds() {
			_, err = fmt.Fprintf(stdout, "\n%s\n\n%s", a.frontCaption(), front)
		}
	}
	return err
}

func (a Findings) latex() string {
	rows := a.rows()
	for _, row := range rows {
		for i, cell := range row {
			row[i] = strings.Replace(cell, " to ", "–", 1) // the table is wide
		}
	}
	style := "\\scriptsize\\setlength{\\tabcolsep}{1.8pt}"
	head := a.header()
	if a.chosen != nil { // it has a column more, and gives up the width L·M and the parameters, which are about equal
		style = strings.Replace(style, "1.8", "1.4", 1)
		if k := slices.Index(head, "width"); k >= 0 {
			head = slices.Delete(head, k, k+2)
			for i := range rows {
				rows[i] = slices.Delete(rows[i], k, k+2)
			}
		}
		for i := range head {
			head[i] = strings.Replace(head[i], search.SplitValidation, "val.", 1)
		}
	}
	below := []string{"\n\\medskip\\raggedright\n"}
	for _, f := range a.facts() {
		below = append(below, fmt.Sprintf("\\textbf{%s} %s.\\par\n", latexText(f.name), latexText(f.text)))
	}
	name := a.results.Study.Name
	means := latexTable{Caption: a.caption(), Label: name + "-means", Style: style, Header: head, Rows: rows,
		Below: below, Bold: map[int]bool{a.Best: true}}
	if !a.KnowsMultiplyAdds() {
		return latexPreamble + means.String()
	}
	header, rows := a.front()
	front := latexTable{Caption: a.frontCaption(), Label: name + "-pareto", Style: style, Header: header, Rows: rows}
	return latexPreamble + means.String() + "\n" + front.String()
}
