package main

import (
	"context"
	"errors"
	"io"

	"github.com/spf13/cobra"

	"igcsearch/cmd/igcsearch/report"
	"igcsearch/store"
)

type exportOptions struct {
	study, db string
	report.ExportOptions
}

func newExportCommand() *cobra.Command {
	var o exportOptions
	cmd := &cobra.Command{
		Use:   "export STUDY",
		Short: "Write the results of a study as csv, json, markdown or latex",
		Long: `export writes the results of a study. csv and json have a row for each trial at its
last epoch, or for each epoch (--epochs): how many training, validation and test
pictures were classified right, of how many, and their mean losses (cross-entropy,
nats). The loss of an evaluation is empty, or null in json, if there was none or an
older igcsearch stored the epoch. An infinite loss is +Inf, or "Infinity" in json.
The fingerprint of the study and the checksum of its pictures are columns of csv, by
which import knows what the results are of; json has the settings.

markdown and latex (with the package booktabs) have a row for each network with the
accuracy on the split that the study shows, as mean ± standard deviation over n
seeds.

The same results give the same bytes. Times differ with each training, so they are
written on request only (--times).`,
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
	addChoice(cmd, &o.Format, "format", "what to write", "csv", "json", "markdown", "latex")
	cmd.Flags().BoolVar(&o.Epochs, "epochs", false, "every epoch, not only the last of each trial (csv, json)")
	cmd.Flags().BoolVar(&o.Times, "times", false,
		"with the seconds of training and evaluation of each epoch (csv, json)")
	return cmd
}

func runExport(ctx context.Context, o exportOptions, stdout, stderr io.Writer) error {
	isSummary := o.Format == "markdown" || o.Format == "latex"
	if isSummary && (o.Epochs || o.Times) {
		return usageError{errors.New("--epochs and --times are for csv and json: leave them out, or change --format")}
	}
	db, err := openReader(ctx, o.db)
	if err != nil {
		return err
	}
	defer db.Close()
	r, err := readResults(ctx, db, o.study, partsFor(o.Epochs)...)
	if err != nil {
		return err
	}
	if isSummary {
		r.Warn(stderr)
	}
	return r.Export(stdout, o.ExportOptions)
}

// partsFor are the parts that an export needs, of each epoch or of the last ones.
func partsFor(epochs bool) []store.Part {
	if epochs {
		return []store.Part{store.Histories}
	}
	return nil
}
