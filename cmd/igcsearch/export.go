package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"igcsearch/cmd/igcsearch/report"
	"igcsearch/search"
	"igcsearch/store"
	"igcsearch/store/tensorboard"
)

type exportOptions struct {
	studies []string // one, or for markdown and latex several
	db      string
	labels  labels
	axes    axisFlags
	best    string // "": all values; else the split that chooses the best of each network
	output  string // "": standard output
	split   string // "": what the study says
	report.ExportOptions
}

func newExportCommand() *cobra.Command {
	var o exportOptions
	cmd := &cobra.Command{
		Use:   "export STUDY...",
		Short: "Write the results of a study as csv, json, markdown, latex or tensorboard",
		Long: `export writes the results of a study. csv and json have a row for each trial at its
last epoch, or for each epoch (--epochs): how many training, validation and test
pictures were classified right, of how many, and their mean losses (cross-entropy,
nats). csv has the accuracies in percent too, beside the counts. The loss of an
evaluation is empty, or null in json, if there was none or an older igcsearch stored
the epoch. An infinite loss is +Inf, or "Infinity" in json.
The precision and the fingerprint of the study and the checksum of its pictures are
columns of csv, by which import knows what the results are of; json has the settings.

markdown and latex (with the package booktabs) have a row for each network with its
accuracy (--split), as mean ± standard deviation over n seeds. The best is bold; marks
stand at those that are not separated from it by the rule of igcsearch analyze, and a
note below the table says what they mean. Where the study holds out validation
pictures, the best on these (--choose) is bold, and both accuracies are shown; else the
best on the pictures that are shown. csv and json have both anyway. Several studies make
one table; --label says what they are called in it.

tensorboard has a run for each trial, as an event file below the folder --output, with
a step for each epoch: accuracies in percent, losses, the learning rate and seconds. A
running study can be written again and again. In TensorBoard's HParams a group is a
network of the study, whose values are means over its seeds.

Of a study with lists of settings, markdown and latex have a row for each value; --at
keeps some of them, and --best shows each network at its best values, and all networks at
the values that are the best on average. csv and json have columns set_epochs,
set_batch, set_learning_rate and set_weight_decay for those that are lists.

Without --format the ending of the file says it: csv, json, md or tex.

The same results give the same bytes. Times differ with each training, so they are
written on request only (--times).`,
		Example: `  igcsearch export quickstart --format csv

  # learning curves
  igcsearch export quickstart --format csv --epochs

  # a table for a paper
  igcsearch export quickstart -o quickstart.tex

  # one table for two studies, named as in the paper
  igcsearch export fig3a fig3b -o table.tex --label fig3a="Budget (i)" --label fig3b="Budget (ii)"

  # learning curves in TensorBoard: tensorboard --logdir runs
  igcsearch export quickstart --format tensorboard -o runs`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return errors.New("export: want at least one STUDY")
			}
			return nil
		},
		ValidArgsFunction: completeStudies,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.studies = args
			if err := o.chooseFormat(cmd.Flags().Changed("format")); err != nil {
				return usageError{err}
			}
			return runExport(cmd.Context(), o, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	addDB(cmd, &o.db)
	addShown(cmd, &o.split)
	addLabels(cmd, &o.labels)
	addAxes(cmd, &o.axes)
	addBest(cmd, &o.best)
	addSplit(cmd, &o.Choose, "choose", "the pictures that choose the network in bold (markdown, latex; default"+
		" validation where the study holds some out)")
	cmd.Flags().StringVarP(&o.output, "output", "o", "",
		"the `FILE` to write in place of standard output; an existing file is replaced; for tensorboard a folder")
	addChoice(cmd, &o.Format, "format", "what to write", "csv", "json", "markdown", "latex", "tensorboard")
	cmd.Flags().BoolVar(&o.Epochs, "epochs", false, "every epoch, not only the last of each trial (csv, json)")
	cmd.Flags().BoolVar(&o.Times, "times", false,
		"with the seconds of training and evaluation of each epoch (csv, json)")
	return cmd
}

// exportEndings are the formats that the ending of a file says.
var exportEndings = map[string]string{".csv": "csv", ".json": "json", ".md": "markdown", ".markdown": "markdown",
	".tex": "latex"}

// chooseFormat takes the format from the ending of the file, unless --format is given, and refuses flags that the
// format does not have.
func (o *exportOptions) chooseFormat(given bool) error {
	if o.output != "" && !given {
		format, ok := exportEndings[strings.ToLower(filepath.Ext(o.output))]
		if !ok {
			return fmt.Errorf("--output %q: its ending says no format: end it in .csv, .json, .md or .tex,"+
				" or give --format", o.output)
		}
		o.Format = format
	}
	isSummary := o.Format == "markdown" || o.Format == "latex"
	switch {
	case !isSummary && len(o.studies) > 1:
		return fmt.Errorf("%s is of one STUDY, got %d: give one, or markdown or latex", o.Format, len(o.studies))
	case !isSummary && (o.axes != axisFlags{} || o.best != ""):
		return errors.New("--at, --by and --best are for markdown and latex: leave them out, because the other formats have" +
			" all trials")
	case !isSummary && len(o.labels) > 0:
		return errors.New("--label is for markdown and latex: leave it out, or change --format")
	case o.Format == "tensorboard" && o.output == "":
		return errors.New("--output is missing: give a folder for the runs of tensorboard, like -o runs")
	case o.Format == "tensorboard" && (o.Epochs || o.Times || o.split != "" || o.Choose != ""):
		return errors.New("--epochs, --times, --split and --choose are for other formats: leave them out, because" +
			" tensorboard has all epochs, times and splits")
	case isSummary && (o.Epochs || o.Times):
		return errors.New("--epochs and --times are for csv and json: leave them out, or change --format")
	case !isSummary && (o.split != "" || o.Choose != ""):
		return errors.New("--split and --choose are for markdown and latex: leave them out, because csv and json" +
			" have all splits")
	}
	return nil
}

func runExport(ctx context.Context, o exportOptions, stdout, stderr io.Writer) error {
	if o.Format == "tensorboard" {
		return exportRuns(ctx, o, stderr)
	}
	if err := checkOutput("--output", o.output, o.db); err != nil {
		return err
	}
	db, err := openReader(ctx, o.db)
	if err != nil {
		return err
	}
	defer db.Close()
	isSummary := o.Format == "markdown" || o.Format == "latex"
	var list []report.Results
	for _, study := range o.studies {
		r, err := readShown(ctx, db, study, o.split, partsFor(o.Epochs || isSummary)...)
		if err != nil {
			return err
		}
		if slices.Contains(names(list), r.Study.Name) {
			return usageError{fmt.Errorf("study %s is given twice", r.Study.Name)}
		}
		r.Label = o.labels[r.Study.Name]
		list = append(list, r)
	}
	list, err = o.parts(list)
	if err != nil {
		return err
	}
	if err := o.labels.check(names(list)); err != nil {
		return usageError{err}
	}
	write := func(w io.Writer) error { return list[0].Export(w, o.ExportOptions) }
	if isSummary {
		write = func(w io.Writer) error { return report.WriteTable(w, list, o.ExportOptions) }
		for _, r := range list {
			r.Warn(stderr)
		}
	}
	if o.output == "" {
		return write(stdout)
	}
	return writeFile(o.output, write)
}

// parts returns the results that --at, --by and --best leave of each study.
func (o exportOptions) parts(list []report.Results) (all []report.Results, err error) {
	for _, r := range list {
		part, err := partOf(r, o.axes, o.best)
		if err != nil {
			return nil, fmt.Errorf("export %w", err)
		}
		all = append(all, part...)
	}
	return all, nil
}

// partsFor are the parts that an export needs, of each epoch or of the last ones.
func partsFor(epochs bool) []store.Part {
	if epochs {
		return []store.Part{store.Histories}
	}
	return nil
}

// exportRuns writes the event files of TensorBoard.
func exportRuns(ctx context.Context, o exportOptions, stderr io.Writer) error {
	if info, err := os.Stat(o.output); err == nil && !info.IsDir() {
		return fmt.Errorf("%s is no folder: give another one by --output", o.output)
	}
	db, err := openReader(ctx, o.db)
	if err != nil {
		return err
	}
	defer db.Close()
	r, err := readResults(ctx, db, o.studies[0], store.Histories, store.Attempts)
	if err != nil {
		return err
	}
	started := map[search.Key]time.Time{}
	for _, a := range slices.Backward(r.Attempts) {
		started[a.Key] = a.Started // at last the oldest
	}
	var runs []tensorboard.Run
	for _, t := range r.Trials {
		runs = append(runs, tensorboard.Run{TrialState: t, Started: started[t.Key]})
	}
	n, err := tensorboard.Write(o.output, r.Study, runs)
	if err != nil {
		return err
	}
	fmt.Fprintf(stderr, "%s: %s of TensorBoard in %s\n", r.Study.Name, report.Count(n, "run"),
		filepath.Join(o.output, r.Study.Name))
	return nil
}
