package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"gonum.org/v1/gonum/stat"

	"igcsearch/search"
	"igcsearch/store"
	"igcsearch/studies"
)

type paperOptions struct {
	table, db, format string
}

func newPaperCommand() *cobra.Command {
	var o paperOptions
	cmd := &cobra.Command{
		Use:   "paper " + strings.Join(studies.PaperTables, "|"),
		Short: "Compare a table of the paper with ours",
		Long: `paper shows each cell of a table of the paper beside ours, and the difference.
Parameters and multiply–adds are computed, in as many digits as the paper prints.
Accuracies and errors are those of the shipped study of that name in the
database, or of its -short form where the full one has no result: mean ± standard
deviation over n seeds; where neither has one, the command that would measure it.
Top-5 errors are not measured: ours is blank there.`,
		Example: `  # all digits of Table 3
  igcsearch paper table3

  # what is measured of Table 4 so far
  igcsearch paper table4 --db igcsearch.db

  # for a paper of your own
  igcsearch paper fig3 --format latex > fig3.tex`,
		ValidArgs: studies.PaperTables,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 || !slices.Contains(studies.PaperTables, args[0]) {
				return fmt.Errorf("paper: want one of %s, got %q", strings.Join(studies.PaperTables, ", "), args)
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			o.table = args[0]
			return runPaper(cmd.Context(), o, cmd.Flags().Changed("db"), cmd.OutOrStdout())
		},
	}
	addDB(cmd, &o.db)
	addChoice(cmd, &o.format, "format", "how to print the cells", "table", "csv", "markdown", "latex")
	return cmd
}

// paperRow is a cell of the paper with ours.
type paperRow struct {
	studies.Cell
	ours, difference, note string
	missing                bool
}

func runPaper(ctx context.Context, o paperOptions, dbAsked bool, stdout io.Writer) error {
	cells, err := studies.Paper(o.table)
	if err != nil {
		return usageError{err}
	}
	var db *store.DB
	if slices.ContainsFunc(cells, func(c studies.Cell) bool { return c.Study != "" }) {
		db, err = openReader(ctx, o.db)
		switch {
		case errors.Is(err, fs.ErrNotExist) && !dbAsked: // nothing is measured yet
		case err != nil:
			return err
		default:
			defer db.Close()
		}
	}
	m := measured{ctx: ctx, db: db, studies: map[string]*results{}}
	var rows []paperRow
	missing := []string{} // studies
	for _, c := range cells {
		row := paperRow{Cell: c, note: c.Note}
		if ours, value, ok := c.Computed(); ok {
			row.ours = ours
			if row.difference = "0"; ours != c.Paper {
				row.difference = difference(value, c.Paper)
			}
		} else if err := m.fill(&row); err != nil {
			return err
		}
		if row.missing && !slices.Contains(missing, c.Study) {
			missing = append(missing, c.Study)
		}
		rows = append(rows, row)
	}
	var text strings.Builder
	for _, name := range missing {
		fmt.Fprintf(&text, "missing   igcsearch run %s   (or %s-short)\n", name, name)
	}
	return printPaper(stdout, o, rows, text.String())
}

// difference is ours less the paper's, with one digit more than it prints;
// "differs" of texts.
func difference(ours float64, paper string) string {
	number, _, _ := strings.Cut(paper, " ")
	theirs, err := strconv.ParseFloat(number, 64)
	if err != nil {
		return "differs"
	}
	_, fraction, ok := strings.Cut(number, ".")
	digits := len(fraction)
	if ok {
		digits++
	}
	return fmt.Sprintf("%+.*f", digits, ours-theirs)
}

// measured reads studies from a database, each once.
type measured struct {
	ctx     context.Context
	db      *store.DB // nil: none
	studies map[string]*results
}

func (m *measured) study(name string) (*results, error) {
	r, ok := m.studies[name]
	if ok || m.db == nil {
		return r, nil
	}
	all, err := m.db.Studies(m.ctx)
	if err != nil {
		return nil, err
	}
	if slices.ContainsFunc(all, func(s store.StudyInfo) bool { return s.Name == name }) {
		found, err := readResults(m.ctx, m.db, name)
		if err != nil {
			return nil, err
		}
		r = &found
	}
	m.studies[name] = r
	return r, nil
}

// fill looks for the cell's network in its study, then in the short one.
func (m *measured) fill(row *paperRow) error {
	if !row.What.Measurable() {
		return nil
	}
	row.missing = true
	for _, name := range []string{row.Study, row.Study + "-short"} {
		r, err := m.study(name)
		if err != nil {
			return err
		}
		if r == nil {
			continue
		}
		system := row.System
		if len(r.study.Depths) > 0 {
			system.Depth = row.Plan.Depth
		}
		var values []float64
		seeds := 0
		for _, t := range r.trials {
			if t.System != system {
				continue
			}
			seeds++
			if a, ok := r.accuracy(t.Trial); ok {
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
			continue
		}
		mean, std := stat.MeanStdDev(values, nil)
		row.ours = fmt.Sprintf("%.2f", mean)
		if len(values) > 1 {
			row.ours += fmt.Sprintf(" ± %.2f", std)
		}
		if row.Paper != "" {
			row.difference = fmt.Sprintf("%+.2f", mean-number(row.Paper))
		}
		row.missing = false
		row.note = cmp.Or(row.note, howMeasured(r.study, len(values), seeds))
		return nil
	}
	return nil
}

func number(text string) float64 {
	first, _, _ := strings.Cut(text, " ")
	v, err := strconv.ParseFloat(first, 64)
	if err != nil {
		panic(err) // the tables are constants
	}
	return v
}

// howMeasured says what of the paper's protocol a study is.
func howMeasured(s search.Study, n, seeds int) string {
	text := fmt.Sprintf("%s: %s, n = %d", s.Name, count(s.Epochs, "epoch"), n)
	if n < seeds {
		text += fmt.Sprintf(" of %d", seeds)
	}
	if s.TrainPictures > 0 {
		text += fmt.Sprintf(", %d pictures", s.TrainPictures)
	}
	if shipped, err := studies.Load(s.Name, nil); err == nil && shipped.Dataset != s.Dataset {
		text += ", " + datasetLabel(s.Dataset)
	}
	return text
}

var paperHeader = []string{"network", "D", "data", "what", "paper", "ours", "difference", "note"}

func (r paperRow) fields() []string {
	what := string(r.What)
	if exponent := map[float64]string{1e6: "10⁶", 1e8: "10⁸", 1e9: "10⁹"}[r.Unit]; exponent != "" {
		what += " (" + exponent + ")"
	}
	depth := r.Plan.DepthOf(r.System)
	ours := r.ours
	if r.missing {
		ours = "missing"
	}
	return []string{r.Network, strconv.Itoa(depth), r.Data, what, r.Paper, ours, r.difference, r.note}
}

func printPaper(stdout io.Writer, o paperOptions, rows []paperRow, missing string) error {
	if o.format == "latex" {
		return paperLatex(stdout, o.table, rows)
	}
	if done, err := printRows(stdout, o.format, paperHeader, rows); done {
		return err
	}
	// Long notes go below the table.
	var notes []string
	all := make([][]string, len(rows))
	for i, r := range rows {
		all[i] = r.fields()
		if note := all[i][7]; len([]rune(note)) > 70 {
			k := slices.Index(notes, note)
			if k < 0 {
				k, notes = len(notes), append(notes, note)
			}
			all[i][7] = fmt.Sprintf("[%d]", k+1)
		}
	}
	// A column that is empty everywhere is left out.
	used := make([]bool, len(paperHeader))
	for _, fields := range all {
		for i, f := range fields {
			used[i] = used[i] || f != ""
		}
	}
	pick := func(all []string) (some []string) {
		for i, f := range all {
			if used[i] {
				some = append(some, f)
			}
		}
		return some
	}
	header := slices.Clone(paperHeader)
	for _, i := range []int{0, 2, 3, 7} { // words
		header[i] = "<" + header[i]
	}
	t := newTable(pick(header)...)
	equal, counted, computed, blank := 0, 0, 0, 0
	for i, r := range rows {
		t.add(pick(all[i])...)
		if r.Study == "" {
			computed++
			if r.difference == "0" {
				equal++
			}
		} else if !r.What.Measurable() {
			blank++
		} else if !r.missing {
			counted++
		}
	}
	var sum []string
	if computed > 0 {
		sum = append(sum, fmt.Sprintf("%d of %s computed equal the paper's in every digit it prints", equal, count(computed, "cell")))
	}
	if n := len(rows) - computed - blank; n > 0 {
		sum = append(sum, fmt.Sprintf("%d of %s measured", counted, count(n, "cell")))
	}
	if blank > 0 {
		sum = append(sum, blankText(blank))
	}
	for i, note := range notes {
		notes[i] = fmt.Sprintf("[%d] %s.\n", i+1, note)
	}
	below := strings.Join(notes, "")
	if o.format == "markdown" {
		_, err := fmt.Fprintf(stdout, "%s\n\n%s.\n%s", t.w.RenderMarkdown(), strings.Join(sum, "; "), strings.ReplaceAll("\n"+below, "\n[", "\n\n["))
		return err
	}
	_, err := fmt.Fprintf(stdout, "%s\n%s%s.\n%s", t, below, strings.Join(sum, "; "), missing)
	return err
}

// blankText says why ours is blank in some cells.
func blankText(cells int) string {
	return fmt.Sprintf("ours is blank in %s: igcsearch measures top-1 errors, not top-5", count(cells, "cell"))
}

// latexText makes text that a table of LaTeX can hold.
var latexText = strings.NewReplacer("_", `\_`, "%", `\%`, "&", `\&`, "#", `\#`, "$", `\$`, "±", `$\pm$`, "×", `$\times$`, "–", "--",
	"10⁶", "$10^6$", "10⁸", "$10^8$", "10⁹", "$10^9$", "2²⁰", "$2^{20}$", "²", "$^2$", "·", `$\cdot$`)

func paperLatex(stdout io.Writer, table string, rows []paperRow) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%% needs \\usepackage{booktabs}\n\\begin{table}\n\\centering\\small\\setlength{\\tabcolsep}{3pt}\n\\caption{%s of the paper, and ours.}\n\\label{tab:paper-%s}\n", tableName(table), table)
	// A column that says nothing is left out: the page is narrow.
	columns := []int{0, 1, 2, 3, 4, 5, 6}
	for _, i := range []int{6, 3, 2} {
		first := rows[0].fields()[i]
		if !slices.ContainsFunc(rows, func(r paperRow) bool { return i == 3 && r.fields()[i] != first || i != 3 && r.fields()[i] != "" }) {
			columns = slices.Delete(columns, i, i+1)
		}
	}
	pick := func(all []string) (some []string) {
		for _, i := range columns {
			some = append(some, all[i])
		}
		return some
	}
	fmt.Fprintf(&b, "\\begin{tabular}{%s}\n\\toprule\n%s \\\\\n\\midrule\n", strings.Join(pick([]string{"l", "r", "l", "l", "r", "r", "r"}), ""),
		strings.Join(pick([]string{"network", "$D$", "data", "what", "paper", "ours", "difference"}), " & "))
	var notes []string
	last, blank := "", 0
	for _, r := range rows {
		if last != "" && r.Network != last && r.Study == "" {
			b.WriteString("\\addlinespace\n")
		}
		last = r.Network
		f := r.fields()[:7]
		if r.What == studies.Structure && r.ours == r.Paper {
			f[5] = "the same"
		}
		if r.Study != "" && !r.What.Measurable() {
			blank++
		}
		if r.note != "" && r.Study == "" {
			notes = append(notes, r.note)
			f[6] += fmt.Sprintf("\x00%d", len(notes))
		}
		for i := range f {
			f[i] = latexText.Replace(f[i])
			if text, n, ok := strings.Cut(f[i], "\x00"); ok {
				f[i] = fmt.Sprintf("%s$^{%s}$", text, n)
			}
		}
		fmt.Fprintf(&b, "%s \\\\\n", strings.Join(pick(f), " & "))
	}
	b.WriteString("\\bottomrule\n\\end{tabular}\n")
	for i, n := range notes {
		fmt.Fprintf(&b, "\n{\\footnotesize $^{%d}$ %s}\n", i+1, latexText.Replace(n))
	}
	if blank > 0 {
		fmt.Fprintf(&b, "\n{\\footnotesize %s.}\n", blankText(blank))
	}
	b.WriteString("\\end{table}\n")
	_, err := io.WriteString(stdout, b.String())
	return err
}

func tableName(table string) string {
	if n, ok := strings.CutPrefix(table, "table"); ok {
		return "Table " + n
	}
	return "Figure 3"
}
