package report

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"igcsearch/search/analysis"
	"igcsearch/studies"
)

// Paper is a table of the paper beside ours.
type Paper struct {
	Table string
	rows  []paperRow
}

// paperRow is a cell of the paper with ours.
type paperRow struct {
	studies.Cell
	ours, difference, note string
	missing                bool
}

// NewPaper compares the cells of a table with what we compute, and with what was measured. find returns the results of
// a study by its name, or nil if there are none.
func NewPaper(table string, cells []studies.Cell, find func(study string) (*Results, error)) (Paper, error) {
	p := Paper{Table: table}
	for _, c := range cells {
		row := paperRow{Cell: c, note: c.Note}
		if ours, value, ok := c.Computed(); ok {
			row.ours = ours
			if row.difference = "0"; ours != c.Paper {
				row.difference = difference(value, c.Paper)
			}
		} else if c.What.Measurable() {
			row.missing = true
			for _, name := range []string{c.Study, c.Study + "-short"} {
				r, err := find(name)
				if err != nil {
					return p, err
				}
				if r != nil && row.measure(*r) {
					break
				}
			}
		}
		p.rows = append(p.rows, row)
	}
	return p, nil
}

// difference is ours less the paper's, with one digit more than the paper prints; "differs" for texts.
func difference(ours float64, paper string) string {
	theirs, digits, err := number(paper)
	if err != nil {
		return "differs"
	}
	if digits > 0 {
		digits++
	}
	return fmt.Sprintf("%+.*f", digits, ours-theirs)
}

// number is the first number of a text, and how many digits follow its point.
func number(text string) (value float64, digits int, err error) {
	first, _, _ := strings.Cut(text, " ")
	_, fraction, _ := strings.Cut(first, ".")
	value, err = strconv.ParseFloat(first, 64)
	return value, len(fraction), err
}

// measure fills the row with what a study measured of its network. It reports whether the study has a result of it.
func (row *paperRow) measure(r Results) bool {
	system := row.System
	if len(r.Study.Depths) > 0 {
		system.Depth = row.Plan.Depth
	}
	var values []float64
	seeds := 0
	for _, t := range r.Trials {
		if t.System != system {
			continue
		}
		seeds++
		if a, ok := r.Accuracy(t.Trial); ok {
			switch row.What {
			case studies.Error:
				a = 100 - a
			case studies.TrainError:
				a = 100 - 100*float64(t.Last.TrainCorrect)/float64(max(1, t.Last.TrainTotal))
			}
			values = append(values, a)
		}
	}
	if len(values) == 0 {
		return false
	}
	row.missing, row.ours = false, MeanStd(values)
	if theirs, _, err := number(row.Paper); err == nil {
		row.difference = fmt.Sprintf("%+.2f", analysis.Summarize(values).Mean-theirs)
	}
	row.note = cmp.Or(row.note, howMeasured(r, row.What, len(values), seeds))
	return true
}

// howMeasured says how a study differs from the paper's protocol.
func howMeasured(r Results, what studies.What, n, seeds int) string {
	s := r.Study
	text := fmt.Sprintf("%s: %s, n = %d", s.Name, Count(s.Epochs, "epoch"), n)
	if n < seeds {
		text += fmt.Sprintf(" of %d", seeds)
	}
	if what != studies.TrainError {
		text += ", " + strings.TrimPrefix(r.SplitPictures(), "the ")
	}
	if s.TrainPictures > 0 {
		text += fmt.Sprintf(", trained on %d", s.TrainPictures)
	}
	if shipped, err := studies.Load(s.Name, nil); err == nil && shipped.Dataset != s.Dataset {
		text += ", " + DatasetLabel(s.Dataset)
	}
	return text
}

// The columns of a table of the paper.
const (
	paperNetwork = iota
	paperDepth
	paperData
	paperWhat
	paperTheirs
	paperOurs
	paperDifference
	paperNote
)

var paperHeader = []string{"<network", "D", "<data", "<what", "paper", "ours", "difference", "<note"}

func (row paperRow) cells() []string {
	what := string(row.What)
	if exponent := map[float64]string{1e6: "10⁶", 1e8: "10⁸", 1e9: "10⁹"}[row.Unit]; exponent != "" {
		what += " (" + exponent + ")"
	}
	ours := row.ours
	if row.missing {
		ours = "missing"
	}
	return []string{row.Network, strconv.Itoa(row.Plan.DepthOf(row.System)), row.Data, what, row.Paper, ours,
		row.difference, row.note}
}

// Print writes the table in one of the formats table, csv, markdown and latex.
func (p Paper) Print(stdout io.Writer, format string) (err error) {
	var all [][]string
	for _, row := range p.rows {
		all = append(all, row.cells())
	}
	switch format {
	case "csv":
		var header []string
		for _, h := range paperHeader {
			header = append(header, strings.TrimPrefix(h, "<"))
		}
		return CSV(stdout, header, all)
	case "latex":
		_, err = io.WriteString(stdout, p.latex(all))
		return err
	}
	notes := footnotes(all)
	columns := used(all)
	t := NewTable(pick(paperHeader, columns)...)
	for _, cells := range all {
		t.Add(pick(cells, columns)...)
	}
	if format == "markdown" {
		text := strings.Join(notes, "\n\n")
		if text != "" {
			text = "\n" + text + "\n"
		}
		_, err = fmt.Fprintf(stdout, "%s\n\n%s.\n%s", t.Markdown(), p.summary(), text)
		return err
	}
	for i := range notes {
		notes[i] += "\n"
	}
	_, err = fmt.Fprintf(stdout, "%s\n%s%s.\n%s", t, strings.Join(notes, ""), p.summary(), p.commands())
	return err
}

// footnotes moves long notes below the table and leaves numbers in their place.
func footnotes(all [][]string) []string {
	const long = 70
	var notes []string
	for _, cells := range all {
		note := cells[paperNote]
		if len([]rune(note)) <= long {
			continue
		}
		k := slices.IndexFunc(notes, func(n string) bool { return strings.HasSuffix(n, "] "+note+".") })
		if k < 0 {
			k = len(notes)
			notes = append(notes, fmt.Sprintf("[%d] %s.", k+1, note))
		}
		cells[paperNote] = fmt.Sprintf("[%d]", k+1)
	}
	return notes
}

// used lists the columns that are not empty everywhere.
func used(all [][]string) (columns []int) {
	for i := range paperHeader {
		if slices.ContainsFunc(all, func(cells []string) bool { return cells[i] != "" }) {
			columns = append(columns, i)
		}
	}
	return columns
}

func pick(cells []string, columns []int) (some []string) {
	for _, i := range columns {
		some = append(some, cells[i])
	}
	return some
}

// summary counts the cells that agree, and those that are measured.
func (p Paper) summary() string {
	equal, computed, measured, missing := 0, 0, 0, 0
	for _, row := range p.rows {
		switch {
		case row.Study == "" && row.difference == "0":
			equal++
			fallthrough
		case row.Study == "":
			computed++
		case row.missing:
			missing++
		case row.What.Measurable():
			measured++
		}
	}
	var parts []string
	if computed > 0 {
		parts = append(parts, fmt.Sprintf("%d of %s computed equal the paper's in every digit it prints", equal,
			Count(computed, "cell")))
	}
	if n := measured + missing; n > 0 {
		parts = append(parts, fmt.Sprintf("%d of %s measured", measured, Count(n, "cell")))
	}
	if text := p.blank(); text != "" {
		parts = append(parts, text)
	}
	return strings.Join(parts, "; ")
}

// blank says why ours is blank in some cells; empty if it is in none.
func (p Paper) blank() string {
	n := 0
	for _, row := range p.rows {
		if row.Study != "" && !row.What.Measurable() {
			n++
		}
	}
	if n == 0 {
		return ""
	}
	return fmt.Sprintf("ours is blank in %s: igcsearch measures top-1 errors, not top-5", Count(n, "cell"))
}

// commands lists the commands that would measure what is missing.
func (p Paper) commands() string {
	var b strings.Builder
	var named []string
	for _, row := range p.rows {
		if row.missing && !slices.Contains(named, row.Study) {
			named = append(named, row.Study)
			fmt.Fprintf(&b, "missing   igcsearch run %s   (or %s-short)\n", row.Study, row.Study)
		}
	}
	return b.String()
}

func (p Paper) latex(all [][]string) string {
	t := latexTable{Caption: fmt.Sprintf("%s of the paper, and ours", p.name()), Label: "paper-" + p.Table,
		Style: "\\small\\setlength{\\tabcolsep}{3pt}", Gaps: map[int]bool{}}
	var notes []string
	for i, row := range p.rows {
		t.Gaps[i] = i > 0 && row.Study == "" && row.Network != p.rows[i-1].Network
		cells := all[i]
		if row.What == studies.Structure && row.ours == row.Paper {
			cells[paperOurs] = "the same"
		}
		if row.note != "" && row.Study == "" {
			notes = append(notes, row.note)
			cells[paperDifference] += latexMark(len(notes))
		}
	}
	// A column that says nothing is left out, because the page is narrow.
	columns := slices.DeleteFunc(used(all), func(i int) bool {
		same := !slices.ContainsFunc(all, func(cells []string) bool { return cells[i] != all[0][i] })
		return i == paperNote || i == paperWhat && same
	})
	t.Header = pick(paperHeader, columns)
	for _, cells := range all {
		t.Rows = append(t.Rows, pick(cells, columns))
	}
	for i, note := range notes {
		t.Below = append(t.Below, fmt.Sprintf("\n{\\footnotesize %s %s}\n", latexText(latexMark(i+1)), latexText(note)))
	}
	if text := p.blank(); text != "" {
		t.Below = append(t.Below, fmt.Sprintf("\n{\\footnotesize %s.}\n", latexText(text)))
	}
	return latexPreamble + t.String()
}

func (p Paper) name() string {
	if n, ok := strings.CutPrefix(p.Table, "table"); ok {
		return "Table " + n
	}
	return "Figure 3"
}
