package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"igcsearch/cmd/igcsearch/report"
	"igcsearch/search"
	"igcsearch/store/table"
	"igcsearch/trainer"
)

type importOptions struct {
	file, study, db, data string
	set                   []string
}

func newImportCommand() *cobra.Command {
	var o importOptions
	cmd := &cobra.Command{
		Use:   "import FILE",
		Short: "Store results that export wrote as csv or json",
		Long: `import stores results that igcsearch export wrote as csv or json, for trials
without results in the database. Trials that have results there must have the same
ones. The attempt of an imported trial says which file it comes from.

json holds the settings of its study and needs no pictures. csv does not: --study
names the study, and its pictures are read. A csv without the losses of
evaluations comes from an older igcsearch, which trained with weight_decay_on =
"weights": the study is stored so, unless --set weight_decay_on says otherwise.

A trial that was not finished is trained from its start, because an export holds no
checkpoints.`,
		Example: `  igcsearch export quickstart --format json --epochs --times > results.json
  igcsearch import results.json --db copy.db`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.file = args[0]
			return runImport(cmd.Context(), o, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	addDB(cmd, &o.db)
	addData(cmd, &o.data)
	cmd.Flags().StringVar(&o.study, "study", "", "the `STUDY` that a csv is of: a shipped one or a file")
	cmd.Flags().StringArrayVar(&o.set, "set", nil,
		"override one setting of that study, as `key=value`; may be repeated")
	return cmd
}

func runImport(ctx context.Context, o importOptions, stdout, stderr io.Writer) error {
	file, err := readExported("import", o.file)
	if err != nil {
		return err
	}
	study, err := o.studyOf(file, stderr)
	if err != nil {
		return err
	}
	in, classes := study.Shape()
	if file.Study == nil || classes == 0 {
		data, err := trainer.New(trainer.Options{DataDir: o.data}).Load(ctx, study)
		if err != nil {
			return err
		}
		in, classes = data.Shape, len(data.Classes)
		if file.Study == nil {
			identify(&study, data, stderr)
		} else if data.Sum != study.DataSum {
			return fmt.Errorf("import %s: its study was trained on other pictures than those in %s", o.file, o.data)
		}
	}
	trials := study.Trials(in, classes)
	results, err := table.Match(study, trials, file.Rows)
	if err != nil {
		return fmt.Errorf("import %s: %w", o.file, err)
	}
	db, err := openWriter(ctx, o.db)
	if err != nil {
		return err
	}
	defer db.Close()
	n, err := importRecords(ctx, db, study, trials, results, o.file)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(stdout, "%s: %s imported into %s, of %d in the file\n", study.Name, report.Count(n, "trial"),
		o.db,
		len(results))
	return err
}

// studyOf returns the study that the file is of.
func (o importOptions) studyOf(file table.File, stderr io.Writer) (search.Study, error) {
	switch {
	case file.Study != nil && o.study != "":
		return search.Study{}, usageError{errors.New("--study is for csv: json has the settings of its study")}
	case file.Study != nil:
		return *file.Study, nil
	case o.study == "":
		err := errors.New("--study is missing: which study is the csv of? Give a shipped one or a file")
		return search.Study{}, usageError{err}
	}
	study, err := loadStudy(o.study, o.set)
	isDecay := func(assignment string) bool { return strings.HasPrefix(assignment, "weight_decay_on=") }
	if err != nil || !file.Older || slices.ContainsFunc(o.set, isDecay) {
		return study, err
	}
	study.WeightDecayOn = "" // as older versions are stored
	warning := `an older igcsearch exported this: it is stored as trained with weight_decay_on = "weights"`
	if study.Dataset == "synthetic" {
		warning += "; it was trained on older synthetic pictures than those that are stored with it, so do not train" +
			" it further"
	}
	report.Warn(stderr, study.Name, []string{warning})
	return study, nil
}
