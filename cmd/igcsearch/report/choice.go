package report

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"igcsearch/search/analysis"
)

// marks are what stands behind the accuracy of a network that no test tells from the best, and of others that a reader
// could take for worse.
var marks = map[analysis.Verdict]string{analysis.NotSeparated: "†", analysis.TooLittle: "‡", analysis.Better: "§"}

// WriteTable writes the table of a paper as markdown or latex: a row for each network of each study, with the best of each
// study in bold, and marks at those that are not separated from it, by the rule of analyze. What is not a number of a
// network stands outside of the table proper: in its caption, and in notes below.
func WriteTable(stdout io.Writer, list []Results, o ExportOptions) error {
	var all []Findings
	for _, r := range list {
		a, err := Analyze(r, o.Choose)
		if err != nil {
			return err
		}
		all = append(all, a)
	}
	t, notes, err := choiceTable(all)
	if err != nil {
		return err
	}
	if o.Format == "latex" {
		t.Below = []string{"\n\\medskip\\footnotesize\\raggedright\n"}
		for _, note := range notes {
			t.Below = append(t.Below, latexText(note)+".\\par\n")
		}
		if len(notes) == 0 {
			t.Below = nil
		}
		_, err = io.WriteString(stdout, latexPreamble+t.String())
		return err
	}
	for row := range t.Bold {
		for i, cell := range t.Rows[row] {
			t.Rows[row][i] = "**" + cell + "**"
		}
	}
	if len(list) > 1 { // Markdown has no rows over several columns
		t.Header = append([]string{"<study"}, t.Header...)
		group := ""
		for i := range t.Rows {
			if text := t.Groups[i]; text != "" {
				group = text
			}
			t.Rows[i] = append([]string{group}, t.Rows[i]...)
		}
	}
	text := ""
	for _, note := range notes {
		text += "\n" + markdownEscape.Replace(note) + ".\n"
	}
	_, err = fmt.Fprintf(stdout, "%s\n\n%s.\n%s", tableOf(t.Header, t.Rows).Markdown(), markdownEscape.Replace(t.Caption),
		text)
	return err
}

// choiceTable has the rows of all studies, and the notes that explain its marks.
func choiceTable(all []Findings) (t latexTable, notes []string, err error) {
	first := all[0]
	header, names := first.results.NameHeader(), func(a Findings, n Network) []string { return a.results.Name(n) }
	if slices.ContainsFunc(all, func(a Findings) bool { return !slices.Equal(a.results.NameHeader(), header) }) {
		header = []string{"<network", "width", "params"}
		names = func(_ Findings, n Network) []string {
			return []string{n.Label(), strconv.Itoa(n.Width()), strconv.Itoa(n.Params)}
		}
	}
	header[slices.Index(header, "params")] = "parameters"
	split, by := first.results.Study.Split, "" // of the pictures that are shown, and of those that choose
	for _, a := range all {
		if a.results.Study.Split != split {
			return t, nil, fmt.Errorf("%s shows the %s pictures, %s the %s pictures: say which by --split",
				first.results.Study.Name, split, a.results.Study.Name, a.results.Study.Split)
		}
		if a.chosen == nil {
			continue
		}
		if chose := a.choosing.Study.Split; by != "" && by != chose {
			return t, nil, fmt.Errorf("%s chooses by the %s pictures, another study by the %s pictures: say which by --choose",
				a.results.Study.Name, chose, by)
		}
		by = a.choosing.Study.Split
	}
	t = latexTable{Bold: map[int]bool{}, Groups: map[int]string{}}
	if by == "" {
		t.Header = append(header, split+" accuracy (%)", "n")
	} else {
		t.Header = append(header, by+" (%)", split+" (%)", "n")
	}
	var labels, captions []string
	for _, a := range all {
		r := a.results
		labels = append(labels, r.Study.Name)
		if len(all) > 1 {
			t.Groups[len(t.Rows)] = r.Title()
		}
		if a.Best >= 0 {
			t.Bold[len(t.Rows)+a.Best] = true
		}
		var others []Network
		if a.chosen != nil {
			others = a.choosing.Networks()
		}
		for i, n := range a.networks {
			row := names(a, n)
			switch {
			case others != nil:
				row = append(row, others[i].Accuracy())
			case by != "":
				row = append(row, "–")
			}
			accuracy := n.Accuracy()
			if a.Best >= 0 && i != a.Best && len(n.Accuracies) > 0 {
				accuracy += marks[a.Verdicts[i]]
			}
			t.Rows = append(t.Rows, append(row, accuracy, n.N()))
		}
		captions = append(captions, r.Caption()+a.boldNote())
		if note := a.marksNote(); note != "" {
			if len(all) > 1 {
				note = r.Title() + ": " + note
			}
			notes = append(notes, note)
		}
	}
	t.Caption, t.Label = strings.Join(captions, ". "), strings.Join(labels, "-")
	return t, notes, nil
}

// boldNote says in a caption which network is in bold, and why.
func (a Findings) boldNote() string {
	switch {
	case a.Best < 0 || a.withScores() < 2:
		return ""
	case a.chosen != nil:
		return fmt.Sprintf("; bold is %s, chosen by %s", a.label(a.Best), a.choosing.SplitPictures())
	}
	return fmt.Sprintf("; bold is %s, the best on these pictures, which makes its accuracy on them too high", a.label(a.Best))
}

// marksNote says what the marks of a study mean: the rule, how many seeds there are, and the pictures. It is "" if there
// is none.
func (a Findings) marksNote() string {
	means := map[analysis.Verdict]string{
		analysis.NotSeparated: "not separated from the " + a.who() + ", which does not mean equal",
		analysis.TooLittle:    "too little is known to tell it from the " + a.who(),
		analysis.Better:       "significantly better than the " + a.who() + " on these pictures",
	}
	var texts []string
	fewest, most := 0, 0
	for _, v := range []analysis.Verdict{analysis.NotSeparated, analysis.TooLittle, analysis.Better} {
		for i, n := range a.networks {
			if a.Best >= 0 && i != a.Best && a.Verdicts[i] == v && len(n.Accuracies) > 0 {
				texts = append(texts, marks[v]+" "+means[v])
				break
			}
		}
	}
	if len(texts) == 0 {
		return ""
	}
	for _, n := range a.networks {
		if seeds := len(n.Accuracies); seeds > 0 {
			if fewest == 0 {
				fewest = seeds
			}
			fewest, most = min(fewest, seeds), max(most, seeds)
		}
	}
	seeds := Count(most, "seed")
	if fewest < most {
		seeds = fmt.Sprintf("%d to %s", fewest, seeds)
	}
	return fmt.Sprintf("%s; %s; on %s, %s of each network", strings.Join(texts, "; "), a.rule(), a.results.SplitPictures(), seeds)
}
