package report

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strings"

	"igcsearch/search"
	"igcsearch/search/analysis"
	"igcsearch/space"
)

// Tuning says how the accuracies of a study's networks depend on the settings of which the study has lists.
type Tuning struct {
	analysis.Tuning
	results  Results // with the split that is shown
	choosing Results // with the split that chose the values; its Study is zero without a choice
	systems  []space.System
	points   []search.Point
	// Warnings say what makes the answers less than they seem.
	Warnings []string
}

// Tune compares the networks of a study with axes at each of its points. The best point of each network, and the one that
// is the best on average, are chosen by the split choose; "" is the validation pictures. Without validation pictures and
// with "" nothing is chosen. Cells.Best is −1 if no trial is done.
func Tune(r Results, choose string) (Tuning, error) {
	t := Tuning{results: r, systems: r.Study.SystemList(), points: r.Study.Axes.Points()}
	choice := analysis.Choice{Own: slices.Repeat([]int{-1}, len(t.systems)), Common: -1}
	t.Warnings = r.Warnings()
	if choose != "" || r.Study.Validation > 0 {
		var err error
		if choice, t.choosing, err = r.choosePoints(choose); err != nil {
			return t, err
		}
		if t.choosing.Study.Split == r.Study.Split {
			t.Warnings = append(t.Warnings, fmt.Sprintf("the %s pictures that show the accuracies also choose the best values,"+
				" which makes the accuracies at these too high", r.Study.Split))
		}
	}
	t.Tuning = analysis.Tune(r.cells(), choice)
	return t, nil
}

// chosen reports whether the values are chosen.
func (t Tuning) chosen() bool { return t.Common >= 0 }

// value names a point in a column or a sentence: its value alone if there is one axis.
func (t Tuning) value(point int) string {
	p := t.points[point]
	if axes := t.results.Study.Axes; len(axes) == 1 {
		x, _ := p.Value(axes[0].Key)
		return axisValue(x)
	}
	return p.String()
}

// settings names the axes: "learning_rate", "batch and learning_rate".
func (t Tuning) settings() string {
	var keys []string
	for _, axis := range t.results.Study.Axes {
		keys = append(keys, axis.Key)
	}
	if len(keys) < 2 {
		return strings.Join(keys, "")
	}
	return strings.Join(keys[:len(keys)-1], ", ") + " and " + keys[len(keys)-1]
}

func (t Tuning) caption() string {
	text := fmt.Sprintf("%s: accuracy (%%) on %s of %s at each %s, mean ± standard deviation over n seeds%s",
		t.results.Title(), t.results.SplitPictures(), DatasetLabel(t.results.Study.Dataset), t.settings(),
		t.results.draws()+t.results.trainedIn())
	if t.chosen() {
		text += fmt.Sprintf("; * is the best of its network, chosen by %s, and gain is what"+
			" the network has there above %s, the common value", t.choosing.SplitPictures(), t.value(t.Common))
	}
	return text
}

func (t Tuning) header() []string {
	header := t.results.withoutAxes().NameHeader()
	for j := range t.points {
		header = append(header, t.value(j))
	}
	header = append(header, "n")
	if t.chosen() {
		header = append(header, "gain", "p (Holm)")
	}
	return header
}

// withoutAxes returns the results with a study that names its networks without points.
func (r Results) withoutAxes() Results {
	r.Study.Axes = nil
	return r
}

func (t Tuning) rows() (rows [][]string) {
	networks := t.networks()
	for i := range t.systems {
		row := t.results.withoutAxes().Name(networks[i][0])
		least, most := math.MaxInt, 0
		for j, n := range networks[i] {
			cell := n.Accuracy()
			if t.Own[i] == j {
				cell += " *"
			}
			row = append(row, cell)
			least, most = min(least, len(n.Accuracies)), max(most, len(n.Accuracies))
		}
		count := fmt.Sprint(most)
		if least < most {
			count = fmt.Sprintf("%d to %d", least, most)
		}
		row = append(row, count)
		if t.chosen() {
			row = append(row, t.gain(i), probability(t.Gains[i].Holm))
		}
		rows = append(rows, row)
	}
	return rows
}

// networks are those of the study, indexed by network and point.
func (t Tuning) networks() [][]Network {
	at := map[search.Key]Network{}
	for _, n := range t.results.Networks() {
		at[search.Key{System: n.System, At: n.At}] = n
	}
	list := make([][]Network, len(t.systems))
	for i, system := range t.systems {
		for _, p := range t.points {
			list[i] = append(list[i], at[search.Key{System: system, At: p}])
		}
	}
	return list
}

// gain is the accuracy of a network at its own value minus that at the common one.
func (t Tuning) gain(network int) string {
	switch c := t.Gains[network]; {
	case t.Own[network] < 0 || math.IsNaN(c.Difference):
		return "–"
	case t.Own[network] == t.Common:
		return "the same"
	default:
		return withHalf(c)
	}
}

func (t Tuning) facts() []fact {
	return slices.Concat(t.choiceFacts(), []fact{{"interaction", t.interactionText()}, {"order", t.orderText()}})
}

func (t Tuning) choiceFacts() []fact {
	if !t.chosen() {
		return []fact{{"not chosen", "the study holds out no validation pictures, so the best values are not chosen: test" +
			" pictures that choose make the accuracy on them too high; --choose test does it all the same"}}
	}
	same := 0
	var differ []string
	for i, own := range t.Own {
		switch {
		case own == t.Common:
			same++
		case own >= 0:
			differ = append(differ, fmt.Sprintf("%s at %s", t.systems[i].Label(), t.value(own)))
		}
	}
	text := fmt.Sprintf("%s %s is the best on average over the networks, by %s", t.settings(), t.value(t.Common),
		t.choosing.SplitPictures())
	if len(t.results.Study.Axes) > 1 {
		text = fmt.Sprintf("%s is the best on average over the networks, by %s", t.value(t.Common),
			t.choosing.SplitPictures())
	}
	list := []fact{{"common", text}}
	own := fmt.Sprintf("%d of %s: it is the best of the network too", same, Count(len(t.Own), "network"))
	if len(differ) > 0 {
		own += "; the others: " + strings.Join(differ, ", ")
	}
	return append(list, fact{"own", own}, fact{"curves", t.curvesText()})
}

// curvesText compares the order of the networks at their own values with that at the common one.
func (t Tuning) curvesText() string {
	couples, other := 0, 0
	ahead := func(a, b int) float64 { return t.Cells.Summaries[a].Mean - t.Cells.Summaries[b].Mean }
	best := [2]int{-1, -1} // networks, at their own and at the common value
	for i := range t.Own {
		if t.Own[i] < 0 {
			continue
		}
		cells := [2]int{t.Cell(i, t.Own[i]), t.Cell(i, t.Common)}
		for k, at := range cells {
			if t.Cells.Summaries[at].N == 0 {
				continue
			}
			if b := best[k]; b < 0 || ahead(at, [2]int{t.Cell(b, max(0, t.Own[b])), t.Cell(b, t.Common)}[k]) > 0 {
				best[k] = i
			}
		}
		for k := range i {
			if t.Own[k] < 0 {
				continue
			}
			own := ahead(cells[0], t.Cell(k, t.Own[k]))
			common := ahead(cells[1], t.Cell(k, t.Common))
			if math.IsNaN(own) || math.IsNaN(common) {
				continue
			}
			if couples++; own*common < 0 {
				other++
			}
		}
	}
	if best[0] < 0 || best[1] < 0 {
		return "there are too few accuracies to compare the two curves"
	}
	a, b := best[0], best[1]
	text := fmt.Sprintf("%s has the highest mean with each network at its own value, %s points above %s; %s has it at the"+
		" common value, %s points above %s", t.systems[a].Label(),
		half(t.Cells.Compare(t.Cell(a, t.Own[a]), t.Cell(b, t.Own[b]))), t.systems[b].Label(), t.systems[b].Label(),
		half(t.Cells.Compare(t.Cell(b, t.Common), t.Cell(a, t.Common))), t.systems[a].Label())
	if a == b {
		text = fmt.Sprintf("%s has the highest mean in both, each network at its own value and all at the common one",
			t.systems[best[0]].Label())
	}
	return fmt.Sprintf("%s; couples of networks that change places between both, by their means: %d of %d", text, other,
		couples)
}

// interactionText says whether the differences between networks depend on the setting.
func (t Tuning) interactionText() string {
	i := t.Interaction
	if i.Test == analysis.Untested {
		return fmt.Sprintf("whether the differences between the networks depend on %s cannot be tested with so few results",
			t.settings())
	}
	how := fmt.Sprintf("F(%d, %d) = %.2f, %s, network × value with the seeds as blocks", i.Between, i.Degrees, i.F, pIs(i.P))
	if i.Test == analysis.PairedTest {
		how = fmt.Sprintf("the smallest of %s over common seeds has %s by Holm, because the spreads seem unequal",
			Count(i.Contrasts, "paired t test"), pIs(i.P))
	}
	if i.P <= analysis.Alpha {
		return fmt.Sprintf("the differences between the networks depend on %s (%s)", t.settings(), how)
	}
	return fmt.Sprintf("that the differences between the networks depend on %s was not shown (%s), which does not mean that"+
		" they do not", t.settings(), how)
}

// orderText says whether two networks change places.
func (t Tuning) orderText() string {
	r := t.Reversal
	if r.Tested == 0 {
		return "nothing is tested: no two networks have two seeds at a common value"
	}
	corrected := fmt.Sprintf("p corrected by Holm for %s, of all networks at all values", Count(r.Tested, "comparison"))
	if t.Reversed {
		return fmt.Sprintf("it depends on %s: %s is ahead of %s by %s points at %s, and behind by %s at %s (the larger %s;"+
			" %s)", t.settings(), t.systems[r.A].Label(), t.systems[r.B].Label(), half(r.Lead), t.value(r.Ahead),
			half(r.Deficit), t.value(r.Behind), pIs(r.P), corrected)
	}
	text := fmt.Sprintf("no two networks were shown to change places between two values (%s)", corrected)
	if r.Places == 0 {
		return text + "; by their means none does"
	}
	if r.Places == 1 {
		return text + "; by their means one couple does"
	}
	return fmt.Sprintf("%s; by their means %d couples do", text, r.Places)
}

// half is a difference without its sign, with the half width of its interval.
func half(c analysis.Comparison) string {
	c.Difference = math.Abs(c.Difference)
	return strings.TrimPrefix(withHalf(c), "+")
}

// Print writes the answers in one of the formats table, json, markdown and latex.
func (t Tuning) Print(stdout io.Writer, format string) error {
	if format == "json" {
		return JSON(stdout, t.toJSON())
	}
	return printAnswers(stdout, format, t.results.Study.Name+"-tuning", t.caption(), t.header(), t.rows(), t.facts())
}

// printAnswers writes one table with the facts below it in one of the formats table, markdown and latex. label is that of
// the table in LaTeX.
func printAnswers(
	stdout io.Writer, format, label, caption string, header []string, rows [][]string, facts []fact,
) (err error) {
	var below strings.Builder
	switch format {
	case "latex":
		paragraphs := []string{"\n\\medskip\\raggedright\n"}
		for _, f := range facts {
			paragraphs = append(paragraphs, fmt.Sprintf("\\textbf{%s} %s.\\par\n", latexText(f.name), latexText(f.text)))
		}
		_, err = io.WriteString(stdout, latexPreamble+latexTable{Caption: caption, Label: label,
			Style: "\\scriptsize\\setlength{\\tabcolsep}{1.8pt}", Header: header, Rows: rows, Below: paragraphs}.String())
	case "markdown":
		for _, f := range facts {
			fmt.Fprintf(&below, "* %s: %s\n", f.name, markdownEscape.Replace(f.text))
		}
		_, err = fmt.Fprintf(stdout, "%s\n\n%s.\n\n%s", tableOf(header, rows).Markdown(), markdownEscape.Replace(caption),
			below.String())
	default:
		for _, f := range facts {
			fmt.Fprintf(&below, "%-20s%s\n", f.name, f.text)
		}
		_, err = fmt.Fprintf(stdout, "%s\n\n%s\n%s", caption, tableOf(header, rows), below.String())
	}
	return err
}

// The answers in JSON; null is what cannot be told.
type (
	tuningJSON struct {
		Study       string           `json:"study"`
		Split       string           `json:"split"`
		Choosing    string           `json:"choosing_split"` // empty: nothing is chosen
		Settings    []search.Axis    `json:"settings"`
		Common      *string          `json:"common"` // the point that is the best on average
		Networks    []tunedJSON      `json:"networks"`
		Interaction *interactionJSON `json:"interaction"`
		Reversal    *reversalJSON    `json:"reversal"` // the most significant case in which two networks change places
		Warnings    []string         `json:"warnings"`
	}

	tunedJSON struct {
		Network string          `json:"network"`
		Points  []tunedPoint    `json:"points"`
		Own     *string         `json:"own"`  // the network's best point
		Gain    *comparisonJSON `json:"gain"` // own against common; null if they are the same
	}

	tunedPoint struct {
		At string `json:"at"`
		meanJSON
	}

	interactionJSON struct {
		Test      analysis.Test `json:"test"` // additive: the F test; paired
		P         *float64      `json:"p"`
		F         *float64      `json:"F"`
		Between   int           `json:"degrees_of_freedom_between,omitempty"`
		Degrees   int           `json:"degrees_of_freedom,omitempty"`
		Contrasts int           `json:"paired_tests,omitempty"`
	}

	reversalJSON struct {
		A           string          `json:"a"`
		B           string          `json:"b"`
		Ahead       string          `json:"ahead_at"`  // where a is ahead of b
		Behind      string          `json:"behind_at"` // where it is behind
		Lead        *comparisonJSON `json:"lead"`
		Deficit     *comparisonJSON `json:"deficit"`
		Holm        *float64        `json:"p_holm"` // the larger of both
		Significant bool            `json:"significant"`
		Places      int             `json:"couples_that_change_places"` // by their means
		Tested      int             `json:"comparisons"`
	}
)

func (t Tuning) toJSON() tuningJSON {
	text := func(point int) *string {
		if point < 0 {
			return nil
		}
		s := string(t.points[point])
		return &s
	}
	compare := func(c analysis.Comparison) *comparisonJSON {
		if c.Test == analysis.Untested {
			return nil
		}
		name := func(cell int) string {
			return search.Key{System: t.systems[cell/t.Values], At: t.points[cell%t.Values]}.Label()
		}
		j := toComparisonJSON(c, name)
		return &j
	}
	j := tuningJSON{Study: t.results.Study.Name, Split: t.results.Study.Split, Choosing: t.choosing.Study.Split,
		Settings: t.results.Study.Axes, Common: text(t.Common), Warnings: append([]string{}, t.Warnings...)}
	for i, system := range t.systems {
		n := tunedJSON{Network: system.Label(), Own: text(t.Own[i]), Gain: compare(t.Gains[i])}
		for k, p := range t.points {
			n.Points = append(n.Points, tunedPoint{string(p), toMeanJSON(t.Cells.Summaries[t.Cell(i, k)])})
		}
		j.Networks = append(j.Networks, n)
	}
	if x := t.Interaction; x.Test != analysis.Untested {
		j.Interaction = &interactionJSON{x.Test, known(x.P), known(x.F), x.Between, x.Degrees, x.Contrasts}
	}
	if r := t.Reversal; !math.IsNaN(r.P) {
		j.Reversal = &reversalJSON{t.systems[r.A].Label(), t.systems[r.B].Label(), string(t.points[r.Ahead]),
			string(t.points[r.Behind]), compare(r.Lead), compare(r.Deficit), known(r.P), t.Reversed, r.Places, r.Tested}
	}
	return j
}
