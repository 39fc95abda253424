package main

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"igcsearch/search"
	"igcsearch/store"
)

type exportOptions struct {
	study  string
	db     string
	format string
	epochs bool
	times  bool
}

func newExportCommand() *cobra.Command {
	var o exportOptions
	cmd := &cobra.Command{
		Use:   "export STUDY",
		Short: "Write the results of a study as csv, json, markdown or latex",
		Long: `export writes the results of a study. csv and json have the raw counts of every
trial at its last epoch, or of every epoch (--epochs): how many training,
validation and test pictures were classified right, of how many, and their mean
losses (cross-entropy, nats). The loss of an evaluation is empty, null in json, if
there was none or an older igcsearch stored the epoch; an infinite one is +Inf,
"Infinity" in json. markdown and latex (with the package booktabs) have a row per
pair with mean ± standard deviation over n seeds of the accuracy on the split that
the study shows.

The same results give the same bytes; times, which never repeat, are only
written on request (--times).`,
		Example: `  igcsearch export quickstart --format csv

  # learning curves
  igcsearch export quickstart --format csv --epochs

  # a table for a paper
  igcsearch export quickstart --format latex`,
		Args:              oneStudy,
		ValidArgsFunction: completeStudies,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.study = args[0]
			return runExport(cmd.Context(), o, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	addDB(cmd, &o.db)
	addChoice(cmd, &o.format, "format", "what to write", "csv", "json", "markdown", "latex")
	cmd.Flags().BoolVar(&o.epochs, "epochs", false, "every epoch, not only the last of each trial (csv, json)")
	cmd.Flags().BoolVar(&o.times, "times", false, "with the seconds of training and evaluation of each epoch (csv, json)")
	return cmd
}

func runExport(ctx context.Context, o exportOptions, stdout, stderr io.Writer) error {
	summary := o.format == "markdown" || o.format == "latex"
	if summary && (o.epochs || o.times) {
		return usageError{errors.New("--epochs and --times are for csv and json: leave them out, or change --format")}
	}
	db, err := openReader(ctx, o.db)
	if err != nil {
		return err
	}
	defer db.Close()
	r, err := readResults(ctx, db, o.study, exportParts(o.epochs)...)
	if err != nil {
		return err
	}
	rows := exportRows(r, o.epochs)
	switch o.format {
	case "csv":
		return exportCSV(stdout, r, rows, o.times)
	case "json":
		return exportJSON(stdout, r, rows, o.times)
	case "markdown":
		r.warn(stderr)
		return exportMarkdown(stdout, r)
	default:
		r.warn(stderr)
		return exportLatex(stdout, r)
	}
}

// exportParts are the parts of a study that exportRows needs.
func exportParts(everyEpoch bool) (parts []store.Part) {
	if everyEpoch {
		parts = append(parts, store.Histories)
	}
	return parts
}

// exportRows are the trials at their last epoch, or at each (everyEpoch).
func exportRows(r results, everyEpoch bool) []exportRow {
	var rows []exportRow
	for _, t := range r.trials {
		if !everyEpoch {
			rows = append(rows, exportRow{t.Trial, t.Last})
			continue
		}
		list := t.History
		if len(list) == 0 && (t.Status.Finished() || t.Status == search.Failed) {
			list = []search.Epoch{{}} // it has a result without an epoch
		}
		for _, e := range list {
			rows = append(rows, exportRow{t.Trial, e})
		}
	}
	return rows
}

// exportRow is a trial at one of its epochs.
type exportRow struct {
	search.Trial
	at search.Epoch
}

func exportCSV(stdout io.Writer, r results, rows []exportRow, times bool) error {
	w := csv.NewWriter(stdout)
	header := append(r.what(), "seed", "status", "epoch", "epochs", "learning_rate", "train_loss",
		"train_correct", "train_total", "validation_correct", "validation_total", "test_correct", "test_total",
		"validation_loss", "test_loss", "error")
	header[0] = strings.TrimPrefix(header[0], "<")
	if times {
		header = append(header, "train_seconds", "eval_seconds")
	}
	w.Write(header) // an error stays in w
	float := func(v float64) string { return strconv.FormatFloat(v, 'g', -1, 64) }
	for _, row := range rows {
		e := row.at
		rate, loss := "", "" // before the first epoch
		if e.Number > 0 {
			rate, loss = float(e.LearningRate), float(e.TrainLoss)
		}
		fields := append(r.which(row.System, row.Params), strconv.Itoa(row.Seed), string(row.Status), strconv.Itoa(e.Number), strconv.Itoa(row.Epochs), rate, loss)
		for _, n := range []int{e.TrainCorrect, e.TrainTotal, e.ValidationCorrect, e.ValidationTotal, e.TestCorrect, e.TestTotal} {
			fields = append(fields, strconv.Itoa(n))
		}
		for _, loss := range []float64{e.ValidationLoss, e.TestLoss} {
			text := "" // not recorded
			if loss != 0 {
				text = float(loss)
			}
			fields = append(fields, text)
		}
		fields = append(fields, row.Error)
		if times {
			fields = append(fields, float(e.TrainSeconds), float(e.EvalSeconds))
		}
		w.Write(fields)
	}
	w.Flush()
	return w.Error()
}

func exportJSON(stdout io.Writer, r results, rows []exportRow, times bool) error {
	type row struct {
		trialJSON
		Width        int      `json:"width"`
		Params       int      `json:"params"`
		LearningRate float64  `json:"learning_rate"`
		TrainSeconds *float64 `json:"train_seconds,omitempty"`
		EvalSeconds  *float64 `json:"eval_seconds,omitempty"`
	}
	list := []row{}
	for _, x := range rows {
		t := x.Trial
		t.Epoch, t.Last = x.at.Number, x.at
		out := row{trialJSON: r.toJSON(t), Width: t.System.Pair().Width(), Params: t.System.Variant.Params(t.System.Pair(), r.study.Kernel), LearningRate: x.at.LearningRate}
		if !r.study.OfPairs() {
			out.Params = t.Params
		}
		if times {
			out.TrainSeconds, out.EvalSeconds = &x.at.TrainSeconds, &x.at.EvalSeconds
		}
		list = append(list, out)
	}
	return printJSON(stdout, struct {
		Study       string          `json:"study"`
		Title       string          `json:"title"`
		Fingerprint string          `json:"fingerprint"`
		Settings    json.RawMessage `json:"settings"`
		Rows        []row           `json:"trials"`
	}{r.study.Name, r.study.Title, r.study.Fingerprint(), r.study.Settings(), list})
}

func exportMarkdown(stdout io.Writer, r results) error {
	t := r.summaryTable()
	_, err := fmt.Fprintf(stdout, "%s\n\n%s.\n", t.w.RenderMarkdown(), markdownEscape.Replace(r.caption()))
	return err
}

var (
	markdownEscape = strings.NewReplacer("_", `\_`, "*", `\*`, "|", `\|`)
	latexEscape    = strings.NewReplacer("_", `\_`, "%", `\%`, "&", `\&`, "#", `\#`, "$", `\$`, "±", `$\pm$`)
)

func exportLatex(stdout io.Writer, r results) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%% needs \\usepackage{booktabs}\n\\begin{table}\n\\centering\n\\caption{%s.}\n\\label{tab:%s}\n",
		latexEscape.Replace(r.caption()), r.study.Name)
	columns, heads := "rrrrrr", "$L$ & $M$ & width & parameters"
	if !r.study.OfPairs() {
		columns, heads = "lrrrr", "network & depth & parameters"
	}
	fmt.Fprintf(&b, "\\begin{tabular}{%s}\n\\toprule\n%s & accuracy (\\%%) & $n$ \\\\\n\\midrule\n", columns, heads)
	for _, p := range r.bySystem() {
		accuracy := "--"
		if len(p.accuracies) > 0 {
			accuracy = "$" + p.accuracy(` \pm `) + "$"
		}
		fmt.Fprintf(&b, "%s & %s & %s \\\\\n", strings.Join(r.which(p.System, p.params), " & "), accuracy, p.n())
	}
	b.WriteString("\\bottomrule\n\\end{tabular}\n\\end{table}\n")
	_, err := io.WriteString(stdout, b.String())
	return err
}
