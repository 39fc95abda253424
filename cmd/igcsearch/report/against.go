package report

import (
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"

	"igcsearch/search"
	"igcsearch/search/analysis"
	"igcsearch/space"
)

// Against compares a study with another one that trained the same networks from the same seeds on the same pictures.
type Against struct {
	analysis.StudyComparison
	a, b     Results   // only the trials of which both studies have an accuracy
	networks []Network // of a
	seeds    int       // that both have, of some network
	settings []search.Difference
	// Warnings say what makes the answers less than they seem.
	Warnings []string
}

// CompareStudies compares b with a, on the split of a, which b must show too. Both are without axes.
func CompareStudies(a, b Results) (Against, error) {
	if err := samePictures(a, b); err != nil {
		return Against{}, err
	}
	c := Against{a: a, b: b}
	for _, d := range search.Differences(a.Study, b.Study) {
		if d.Key != "name" {
			c.settings = append(c.settings, d)
		}
	}
	c.a.Trials, c.b.Trials = commonTrials(a, b)
	if len(c.a.Trials) == 0 {
		return c, noCommonTrial(a, b)
	}
	c.networks = c.a.Networks()
	c.seeds = len(seedsOf(c.a.Trials))
	c.StudyComparison = analysis.CompareStudies(c.a.Samples(), c.b.Samples())
	c.Warnings = c.warnings(a, b)
	return c, nil
}

// pictureSettings say which pictures the networks are trained on and evaluated on.
var pictureSettings = []string{"dataset", "train_pictures", "test_pictures", "validation", "split_seed", "split_per_seed",
	"size", "resize", "data_sum", "unreadable"}

// samePictures returns an error if the accuracies of two studies are not of the same pictures, after training on the same
// ones: what differs between them then may be that of the pictures.
func samePictures(a, b Results) error {
	for _, d := range search.Differences(a.Study, b.Study) {
		switch {
		case d.Key == "data_sum":
			return errors.New("they are of other pictures: the checksums of these differ")
		case slices.Contains(pictureSettings, d.Key):
			return fmt.Errorf("they are of other pictures: %s is %s in %s and %s in %s", d.Key, d.There, a.Study.Name,
				d.Here, b.Study.Name)
		}
	}
	if x, y := a.Pictures(), b.Pictures(); x != y && x > 0 && y > 0 {
		return fmt.Errorf("the accuracies of %s are of %d %s pictures, and those of %s of %d", a.Study.Name, x, a.Study.Split,
			b.Study.Name, y)
	}
	return nil
}

// commonTrials returns the trials of which both studies have an accuracy, in the order of a.
func commonTrials(a, b Results) (inA, inB []search.TrialState) {
	there := map[search.Key]search.TrialState{}
	for _, t := range b.Trials {
		if _, ok := b.Accuracy(t.Trial); ok {
			there[t.Key] = t
		}
	}
	for _, t := range a.Trials {
		other, common := there[t.Key]
		if _, ok := a.Accuracy(t.Trial); ok && common {
			inA, inB = append(inA, t), append(inB, other)
		}
	}
	return inA, inB
}

func noCommonTrial(a, b Results) error {
	there := b.Study.SystemList()
	common := slices.ContainsFunc(a.Study.SystemList(), func(s space.System) bool { return slices.Contains(there, s) })
	if !common {
		return fmt.Errorf("they have no network in common: %s has %s, and %s has %s", a.Study.Name, systemNames(a),
			b.Study.Name, systemNames(b))
	}
	return fmt.Errorf("no network has an accuracy from the same seed in both: %d of %s of %s are done, and %d of %s of %s",
		a.Done(), Count(len(a.Trials), "trial"), a.Study.Name, b.Done(), Count(len(b.Trials), "trial"), b.Study.Name)
}

// systemNames lists the first networks of a study.
func systemNames(r Results) string {
	const named = 5
	var names []string
	for i, s := range r.Study.SystemList() {
		if i == named {
			return strings.Join(names, ", ") + ", …"
		}
		names = append(names, s.Label())
	}
	return strings.Join(names, ", ")
}

func seedsOf(trials []search.TrialState) map[int]bool {
	seeds := map[int]bool{}
	for _, t := range trials {
		seeds[t.Seed] = true
	}
	return seeds
}

// warnings says what is left out. a and b are the whole studies.
func (c Against) warnings(a, b Results) (list []string) {
	for _, r := range []Results{a, b} {
		for _, text := range r.Warnings() {
			list = append(list, fmt.Sprintf("%s: %s", r.Study.Name, text))
		}
		if diverged, _ := (Findings{results: r}).endings(); len(diverged) > 0 {
			list = append(list, fmt.Sprintf("%s: diverged trials are left out, so that the means of %s are too high",
				r.Study.Name, strings.Join(diverged, ", ")))
		}
		if n := r.Done() - len(c.a.Trials); n > 0 {
			them := "them"
			if n == 1 {
				them = "it"
			}
			list = append(list, fmt.Sprintf("%s of %s left out, because the other study has no accuracy of %s", Count(n, "trial"),
				r.Study.Name, them))
		}
	}
	if c.Mean.Test == analysis.Untested && c.seeds == 1 {
		list = append(list, "one common seed only, which decides nothing")
	}
	if a.Study.Precision == b.Study.Precision && !slices.Equal(a.ISAs, b.ISAs) {
		list = append(list, fmt.Sprintf("they ran on different instruction sets or GPUs (%s; %s), which is a part of the "+
			"difference", strings.Join(a.ISAs, ", "), strings.Join(b.ISAs, ", ")))
	}
	return list
}

// label names a network.
func (c Against) label(network int) string { return c.networks[network].Label() }

func (c Against) caption() string {
	differ := "have the same settings"
	if len(c.settings) > 0 {
		var texts []string
		for _, d := range c.settings {
			texts = append(texts, fmt.Sprintf("%s (%s, %s)", d.Key, d.There, d.Here))
		}
		differ = "differ in " + strings.Join(texts, ", ")
	}
	over := c.a.draws()
	if c.a.Study.Precision == c.b.Study.Precision {
		over += c.a.trainedIn()
	}
	return fmt.Sprintf("%s and %s %s; %s and %s in both, %s of each study; accuracy (%%) on %s of %s, mean ± standard "+
		"deviation over n seeds%s; difference is %s, with its 95 %% interval", c.a.Title(), c.b.Title(), differ,
		Count(len(c.networks), "network"),
		Count(c.seeds, "seed"), Count(c.Mean.Common, "training"), c.a.SplitPictures(), DatasetLabel(c.a.Study.Dataset),
		over, c.difference())
}

// difference says which way a difference is.
func (c Against) difference() string { return c.b.Title() + " less " + c.a.Title() }

func (c Against) header() []string {
	return slices.Concat(c.a.NameHeader(), []string{c.a.Title(), "rank", c.b.Title(), "rank", "n", "difference", "p (Holm)"})
}

func (c Against) rows() (rows [][]string) {
	others := c.b.Networks()
	for i, n := range c.networks {
		d := c.Networks[i]
		rows = append(rows, slices.Concat(c.a.Name(n), []string{n.Accuracy(), strconv.Itoa(c.RankA[i]), others[i].Accuracy(),
			strconv.Itoa(c.RankB[i]), n.N(), withHalf(d), probability(d.Holm)}))
	}
	return rows
}

func (c Against) facts() []fact {
	return []fact{{"difference", c.meanText()}, {"single differences", c.spreadText()}, {"by network", c.networkText()},
		{"spread over seeds", c.spreadsText()}, {"order", c.orderText()}}
}

// untested says why there is no test.
func (c Against) untested() string {
	if c.Mean.Common == len(c.networks) {
		return "not tested: no network has two common seeds"
	}
	return "not tested: the differences of a network are all equal"
}

// meanText is the difference over all networks, with what the test could have found.
func (c Against) meanText() string {
	m := c.Mean
	text := fmt.Sprintf("%s points, %s, the mean over %s", withHalf(m), c.difference(), Count(len(c.networks), "network"))
	if m.Test == analysis.Untested {
		return text + "; " + c.untested()
	}
	shown := "a difference was not shown, which does not mean that there is none"
	if m.P <= analysis.Alpha {
		shown = "the difference was shown"
	}
	return fmt.Sprintf("%s; %s (%s, t test of the model difference = network + error, %s of freedom); 80 %% of such studies "+
		"find a difference of %.2f points, and fewer find a smaller one", text, shown, pIs(m.P),
		Count(int(m.Degrees), "degree"), m.Detectable)
}

func (c Against) spreadText() string {
	if math.IsNaN(c.Spread) {
		return "nothing is known of their spread"
	}
	return fmt.Sprintf("their standard deviation is %.2f points around the mean of their network", c.Spread)
}

// networkText says whether the difference depends on the network, and what could be found of a single one.
func (c Against) networkText() string {
	var names []string
	least, most := math.Inf(1), math.Inf(-1)
	for i, d := range c.Networks {
		if d.Holm <= analysis.Alpha {
			names = append(names, c.label(i))
		}
		if !math.IsNaN(d.Detectable) {
			least, most = min(least, d.Detectable), max(most, d.Detectable)
		}
	}
	var parts []string
	if f := c.Interaction; !math.IsNaN(f.P) {
		text := "that the difference depends on the network was not shown (%s), which does not mean that it does not"
		if f.P <= analysis.Alpha {
			text = "the difference depends on the network (%s)"
		}
		parts = append(parts, fmt.Sprintf(text, fText(f)))
	}
	if most > 0 {
		one := "the difference of no single network was shown"
		if len(names) > 0 {
			one = "shown of " + strings.Join(names, ", ")
		}
		find := fmt.Sprintf("%.2f points", most)
		if find != fmt.Sprintf("%.2f points", least) {
			find = fmt.Sprintf("%.2f to %.2f points", least, most)
		}
		parts = append(parts, fmt.Sprintf("%s by the paired t tests of the table, 80 %% of which find a difference of %s", one,
			find))
	}
	if len(parts) == 0 {
		return c.untested()
	}
	return strings.Join(parts, "; ")
}

func fText(f analysis.FTest) string {
	return fmt.Sprintf("F(%d, %d) = %.2f, %s", f.Numerator, f.Denominator, f.F, pIs(f.P))
}

// spreadsText compares the spreads of the two studies.
func (c Against) spreadsText() string {
	if math.IsNaN(c.Spreads.P) {
		return "not compared: there are fewer than two networks with two common seeds, or one study has no spread"
	}
	shown := "that they differ was not shown (%s), which does not mean that they are equal"
	if c.Spreads.P <= analysis.Alpha {
		shown = "they differ (%s)"
	}
	return fmt.Sprintf("%.2f points in %s and %.2f in %s, the residuals of network + seed; the second is %.2f times the first "+
		"(%.2f to %.2f); "+shown+"; the test takes both studies as independent, so that a luck that they share makes it find "+
		"less", c.SpreadA, c.a.Title(), c.SpreadB, c.b.Title(), c.Ratio, c.Low, c.High, fText(c.Spreads))
}

// orderText says which networks change places, and whether they are separated.
func (c Against) orderText() string {
	if len(c.Couples) == 0 {
		return "there is one network"
	}
	var swaps []string
	swapped, inA, inB := 0, 0, 0
	for _, k := range c.Couples {
		inA, inB = inA+separated(k.InA), inB+separated(k.InB)
		if !k.Swapped {
			continue
		}
		swapped++
		if k.Neighbours {
			swaps = append(swaps, fmt.Sprintf("%s and %s (%s)", c.label(k.X), c.label(k.Y), c.whereSeparated(k)))
		}
	}
	text := "the same in both"
	if swapped > 0 {
		text = fmt.Sprintf("%d of %s of networks change places; the neighbours in %s that do: %s", swapped,
			Count(len(c.Couples), "couple"), c.a.Title(), strings.Join(swaps, ", "))
	}
	return fmt.Sprintf("%s; of all couples %d are separated in %s and %d in %s (by the tests of analyze, p corrected by Holm "+
		"for %s in each)", text, inA, c.a.Title(), inB, c.b.Title(), Count(len(c.Couples), "couple"))
}

// separated is 1 if the difference of a couple is significant, else 0.
func separated(c analysis.Comparison) int {
	if c.Holm <= analysis.Alpha {
		return 1
	}
	return 0
}

// whereSeparated says which study separates a couple that changes places.
func (c Against) whereSeparated(k analysis.Couple) string {
	switch a, b := separated(k.InA) == 1, separated(k.InB) == 1; {
	case a && b:
		return "separated in both"
	case a:
		return "separated in " + c.a.Title() + " only"
	case b:
		return "separated in " + c.b.Title() + " only"
	}
	return "separated in neither"
}

// Print writes the answers in one of the formats table, json, markdown and latex.
func (c Against) Print(stdout io.Writer, format string) error {
	if format == "json" {
		return JSON(stdout, c.toJSON())
	}
	return printAnswers(stdout, format, c.a.Study.Name+"-against-"+c.b.Study.Name, c.caption(), c.header(), c.rows(),
		c.facts())
}

// The answers in JSON; null is what cannot be told. A difference is b less a.
type (
	againstJSON struct {
		A           string               `json:"a"`
		B           string               `json:"b"`
		Settings    []settingJSON        `json:"settings"` // in which they differ
		Dataset     string               `json:"dataset"`
		Split       string               `json:"split"`
		Pictures    int                  `json:"pictures"`
		Seeds       int                  `json:"common_seeds"`
		Mean        differenceJSON       `json:"difference"` // the mean over the networks
		Spread      *float64             `json:"std_of_single_differences"`
		Interaction *fTestJSON           `json:"difference_by_network"`
		Spreads     spreadsJSON          `json:"spreads"`
		Networks    []networkAgainstJSON `json:"networks"`
		Couples     []coupleJSON         `json:"couples"`
		Warnings    []string             `json:"warnings"`
	}

	settingJSON struct {
		Key string `json:"setting"`
		A   string `json:"a"`
		B   string `json:"b"`
	}

	differenceJSON struct {
		Difference float64  `json:"difference"` // points
		Low        *float64 `json:"low"`        // of the 95 % interval
		High       *float64 `json:"high"`
		Test       string   `json:"test"` // networks, paired; empty: none
		Degrees    *float64 `json:"degrees_of_freedom"`
		P          *float64 `json:"p"`
		Holm       *float64 `json:"p_holm"`
		Detectable *float64 `json:"detectable"` // points, with power 0.8
		N          int      `json:"n"`          // single differences
	}

	fTestJSON struct {
		F           float64  `json:"F"`
		Numerator   int      `json:"degrees_of_freedom_numerator"`
		Denominator int      `json:"degrees_of_freedom_denominator"`
		P           *float64 `json:"p"`
	}

	spreadsJSON struct {
		A     *float64   `json:"a"` // residual of network + seed, points
		B     *float64   `json:"b"`
		Ratio *float64   `json:"ratio"` // b to a
		Low   *float64   `json:"low"`
		High  *float64   `json:"high"`
		Test  *fTestJSON `json:"test"`
	}

	networkAgainstJSON struct {
		Network    string         `json:"network"`
		A          meanJSON       `json:"a"`
		B          meanJSON       `json:"b"`
		RankA      int            `json:"rank_a"`
		RankB      int            `json:"rank_b"`
		Difference differenceJSON `json:"difference"`
	}

	coupleJSON struct {
		Ahead   string         `json:"ahead_in_a"`
		Behind  string         `json:"behind_in_a"`
		Swapped bool           `json:"changes_places"`
		InA     comparisonJSON `json:"in_a"`
		InB     comparisonJSON `json:"in_b"`
	}
)

func toDifferenceJSON(c analysis.Comparison) differenceJSON {
	return differenceJSON{*known(c.Difference), known(c.Difference - c.Half), known(c.Difference + c.Half), string(c.Test),
		known(c.Degrees), known(c.P), known(c.Holm), known(c.Detectable), c.Common}
}

func toFTestJSON(f analysis.FTest) *fTestJSON {
	if math.IsNaN(f.P) {
		return nil
	}
	return &fTestJSON{*known(f.F), f.Numerator, f.Denominator, known(f.P)}
}

func (c Against) toJSON() againstJSON {
	j := againstJSON{A: c.a.Study.Name, B: c.b.Study.Name, Settings: []settingJSON{}, Dataset: c.a.Study.Dataset,
		Split: c.a.Study.Split, Pictures: c.a.Pictures(), Seeds: c.seeds, Mean: toDifferenceJSON(c.Mean),
		Spread: known(c.Spread), Interaction: toFTestJSON(c.Interaction),
		Spreads: spreadsJSON{known(c.SpreadA), known(c.SpreadB), known(c.Ratio), known(c.Low), known(c.High),
			toFTestJSON(c.Spreads)},
		Couples: []coupleJSON{}, Warnings: append([]string{}, c.Warnings...)}
	for _, d := range c.settings {
		j.Settings = append(j.Settings, settingJSON{d.Key, d.There, d.Here})
	}
	for i := range c.networks {
		j.Networks = append(j.Networks, networkAgainstJSON{c.label(i), toMeanJSON(c.A[i]), toMeanJSON(c.B[i]), c.RankA[i],
			c.RankB[i], toDifferenceJSON(c.Networks[i])})
	}
	for _, k := range c.Couples {
		j.Couples = append(j.Couples, coupleJSON{c.label(k.X), c.label(k.Y), k.Swapped, toComparisonJSON(k.InA, c.label),
			toComparisonJSON(k.InB, c.label)})
	}
	return j
}
