package report

import (
	"fmt"
	"regexp"
	"strings"

	"igcsearch/search"
)

// latexTable is a table of LaTeX, with its caption and label.
type latexTable struct {
	Caption, Label string
	Style          string   // follows \centering, like \small
	Header         []string // as of NewTable
	Rows           [][]string
	// Gaps are rows before which a space is left.
	Gaps map[int]bool
	// Groups are titles of the rows that follow, by the first of them.
	Groups map[int]string
	// Bold are rows in bold.
	Bold map[int]bool
	// Below are paragraphs below the table, as LaTeX.
	Below []string
}

// latexPreamble says what a document needs for latexTable.
const latexPreamble = "% needs \\usepackage{booktabs}\n"

// String ends with a newline.
func (t latexTable) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "\\begin{table}\n\\centering%s\n\\caption{%s.}\n\\label{tab:%s}\n\\begin{tabular}{", t.Style,
		latexText(t.Caption), t.Label)
	heads := make([]string, len(t.Header))
	for i, h := range t.Header {
		name, isWords := strings.CutPrefix(h, "<")
		b.WriteString(map[bool]string{true: "l", false: "r"}[isWords])
		heads[i] = latexText(name)
		if len(name) == 1 { // a symbol, like L
			heads[i] = "$" + name + "$"
		}
	}
	fmt.Fprintf(&b, "}\n\\toprule\n%s \\\\\n\\midrule\n", strings.Join(heads, " & "))
	for i, row := range t.Rows {
		cells := make([]string, len(row))
		for k, cell := range row {
			number := strings.TrimRight(cell, "†‡§")
			cells[k] = latexText(number)
			if t.Bold[i] && number != "" {
				cells[k] = "\\textbf{" + cells[k] + "}"
			}
			if number != cell { // numbers stay under one another
				cells[k] += "\\rlap{" + latexText(cell[len(number):]) + "}"
			}
		}
		if t.Gaps[i] || t.Groups[i] != "" && i > 0 {
			b.WriteString("\\addlinespace\n")
		}
		if title := t.Groups[i]; title != "" {
			fmt.Fprintf(&b, "\\multicolumn{%d}{l}{%s} \\\\\n", len(row), latexText(title))
		}
		fmt.Fprintf(&b, "%s \\\\\n", strings.Join(cells, " & "))
	}
	b.WriteString("\\bottomrule\n\\end{tabular}\n")
	for _, text := range t.Below {
		b.WriteString(text)
	}
	b.WriteString("\\end{table}\n")
	return b.String()
}

var (
	latexEscape = strings.NewReplacer(
		`\`, `\textbackslash{}`, "{", `\{`, "}", `\}`, "~", `\textasciitilde{}`, "^", `\textasciicircum{}`, ">", "$>$",
		"_", `\_`, "%", `\%`, "&", `\&`, "#", `\#`, "$", `\$`, "<", "$<$", "--", "-{}-", "–", "--",
		"†", `$^\dagger$`, "‡", `$^\ddagger$`, "§", `$^\S$`, "±", `$\pm$`, "×", `$\times$`, "·", `$\cdot$`, "log2 M", `$\log_2 M$`,
		"10⁶", "$10^6$", "10⁸", "$10^8$", "10⁹", "$10^9$", "2²⁰", "$2^{20}$", "²", "$^2$")
	// sign is the sign of a number.
	sign = regexp.MustCompile(`(^|[ (;])([-+])(\d)`)
	// mark is a reference to a footnote, as latexMark makes it.
	mark = regexp.MustCompile("\x00(\\d+)")
)

// latexText is text as a table of LaTeX can hold it, with the signs of numbers as in formulas.
func latexText(text string) string {
	text = sign.ReplaceAllString(latexEscape.Replace(text), `${1}$$${2}$$${3}`)
	return search.PrintableLine(mark.ReplaceAllString(text, `$$^{${1}}$$`))
}

// latexMark refers to footnote n of a table.
func latexMark(n int) string { return fmt.Sprintf("\x00%d", n) }
