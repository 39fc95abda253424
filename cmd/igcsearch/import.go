package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"igcsearch/cmd/igcsearch/report"
	"igcsearch/search"
	"igcsearch/space"
	"igcsearch/store"
	"igcsearch/store/table"
	"igcsearch/studies"
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

json holds the settings of its study and needs no pictures, except of a folder. csv
does not: --study names the study, and its pictures are read. The learning rates,
parameters and numbers of pictures in the file must be those of the study, and so
must the fingerprint of the settings and the checksum of the pictures. A csv of an
older igcsearch does not have the last two; import then says what it could not
compare. A csv may have been saved by a spreadsheet, with commas and points.

A csv without the losses of evaluations comes from an older igcsearch, which trained
with weight_decay_on = "weights": the study is stored so, unless --set
weight_decay_on says otherwise.

After an error everything is as it was before.

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
	cmd.Flags().StringVar(&o.study, "study", "",
		"the `STUDY` that a csv is of: one of the database, a shipped one, or a file")
	cmd.Flags().StringArrayVar(&o.set, "set", nil,
		"override one setting of the study, as `key=value`; may be repeated; beside json\nonly what changes no result")
	return cmd
}

func runImport(ctx context.Context, o importOptions, stdout, stderr io.Writer) error {
	file, err := readExported("import", o.file)
	if err != nil {
		return err
	}
	study, err := o.studyOf(ctx, file, stderr)
	if err != nil {
		return err
	}
	in, classes, pictures, err := o.look(ctx, file, &study, stderr)
	if err != nil {
		return err
	}
	trials := study.Trials(in, classes)
	results, err := matched(file, study, trials, pictures)
	if err != nil {
		return fmt.Errorf("import %s: %w", o.file, err)
	}
	report.Warn(stderr, study.Name, o.warnings(file, study))
	n := 0
	err = intoDatabase(ctx, o.db, func(db *store.DB) (err error) {
		n, err = importRecords(ctx, db, study, trials, results, o.file)
		return err
	})
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(stdout, "%s: %s imported into %s, of %d in the file\n", study.Name, report.Count(n, "trial"),
		o.db, len(results))
	return err
}

// intoDatabase opens a database for do. One that does not exist yet appears after do, so that an error leaves nothing
// behind.
func intoDatabase(ctx context.Context, path string, do func(*store.DB) error) error {
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return store.Create(ctx, path, do)
	}
	db, err := openWriter(ctx, path)
	if err != nil {
		return err
	}
	return errors.Join(do(db), db.Close())
}

// picturesOf are the pictures of a trial by its seed.
type picturesOf = func(seed int) (table.Pictures, error)

// matched returns the results of a file by the trials of the study. It refuses results that are not of the study.
func matched(
	file table.File, study search.Study, trials []search.Trial, pictures picturesOf,
) ([]search.TrialState, error) {
	results, err := table.Match(study, trials, file.Rows)
	if err == nil {
		err = table.Compare(study, results, pictures, trainer.LearningRate)
	}
	if here := cmp.Or(study.Precision, search.PrecisionF32); err == nil && file.Study == nil && file.Precision != "" &&
		file.Precision != here {
		err = fmt.Errorf("its results were trained with precision = %q, but study %s has %q: give --set precision=%s",
			file.Precision, study.Name, here, file.Precision)
	}
	if here := study.Fingerprint(); err == nil && file.Study == nil && file.Fingerprint != "" && file.Fingerprint != here {
		err = fmt.Errorf("its results were trained with other settings than those of study %s (fingerprint %.8s there, "+
			"%.8s here): give the study file that they were trained with, or import them as json, which holds the settings",
			study.Name, file.Fingerprint, here)
	}
	return results, err
}

// warnings says of a file what it leaves open.
func (o importOptions) warnings(file table.File, study search.Study) (list []string) {
	const compared = "only learning rates, epochs, parameters and numbers of pictures could be compared with the study"
	switch {
	case file.Fingerprint == "" && file.DataSum == "":
		list = append(list, "the file does not say with which settings and on which pictures its results were trained: "+
			compared)
	case file.Fingerprint == "":
		list = append(list, "the file does not say with which settings its results were trained: "+compared+
			", and the checksum of the pictures")
	case file.DataSum == "":
		list = append(list, "the file does not say on which pictures its results were trained: only their numbers could "+
			"be compared")
	}
	if file.Study != nil || !file.Older || o.sets("weight_decay_on") {
		return list
	}
	text := `an older igcsearch exported this: it is stored as trained with weight_decay_on = "weights"`
	if study.Dataset == "synthetic" {
		text += "; it was trained on older synthetic pictures than those that are stored with it, so do not train" +
			" it further"
	}
	return append(list, text)
}

func (o importOptions) sets(key string) bool {
	return slices.ContainsFunc(o.set, func(assignment string) bool { return strings.HasPrefix(assignment, key+"=") })
}

// look returns the size of the pictures of a study, the number of its classes, and how many pictures its trials have, nil
// if that is not known. It reads the pictures where they are at hand, and refuses a file with results of others.
func (o importOptions) look(
	ctx context.Context, file table.File, study *search.Study, stderr io.Writer,
) (in space.Shape, classes int, pictures picturesOf, err error) {
	in, classes = study.Shape()
	if file.Study != nil && classes > 0 && study.NeedsFiles() {
		data := trainer.Expected(*study)
		return in, classes, func(int) (table.Pictures, error) {
			return table.Pictures{Train: data.Train, Validation: data.Validation, Test: data.Test}, nil
		}, nil
	}
	train := trainer.New(trainer.Options{DataDir: o.data})
	data, err := train.Load(ctx, *study)
	if err != nil {
		return in, classes, nil, err
	}
	in, classes = data.Shape, len(data.Classes)
	pictures = func(seed int) (of table.Pictures, err error) {
		set, err := train.Pictures(ctx, *study, seed)
		if err == nil {
			of = table.Pictures{Train: set.Train.Len(), Validation: set.Validation.Len(), Test: set.Test.Len()}
		}
		return of, err
	}
	others := file.DataSum != "" && file.DataSum != data.Sum
	switch {
	case others && file.Study != nil && !study.NeedsFiles():
		report.Warn(stderr, study.Name, []string{"it was trained on older " + study.Dataset + " pictures than those of " +
			"this igcsearch, so it cannot be trained further"})
		return in, classes, nil, nil
	case others:
		where := ""
		if study.NeedsFiles() {
			where = " in " + o.data
		}
		return in, classes, nil, fmt.Errorf("import %s: its results were trained on other pictures than those of study "+
			"%s%s (checksum %.8s there, %.8s here)", o.file, study.Name, where, file.DataSum, data.Sum)
	case file.Study == nil:
		identify(study, data, stderr)
	}
	return in, classes, pictures, nil
}

// studyOf returns the study that the file is of.
func (o importOptions) studyOf(ctx context.Context, file table.File, stderr io.Writer) (search.Study, error) {
	switch {
	case file.Study != nil && o.study != "":
		return search.Study{}, usageError{errors.New("--study is for csv: json has the settings of its study")}
	case file.Study != nil:
		return o.changed(*file.Study)
	case o.study == "":
		err := errors.New("--study is missing: which study is the csv of? Give one of the database, a shipped one or a file")
		return search.Study{}, usageError{err}
	}
	study, err := studyToTrain(ctx, o.study, o.set, o.db, stderr)
	if file.Older && !o.sets("weight_decay_on") {
		study.WeightDecayOn = "" // as older versions are stored
	}
	return study, err
}

// changed returns the study of a json file with what --set changes. What was trained cannot be changed.
func (o importOptions) changed(study search.Study) (search.Study, error) {
	if len(o.set) == 0 {
		return study, nil
	}
	s, err := studies.Change(study, o.set)
	if err != nil {
		return s, namingSet(err)
	}
	s.DataSum, s.Unreadable = study.DataSum, study.Unreadable
	if s.Fingerprint() != study.Fingerprint() {
		return s, usageError{fmt.Errorf("--set cannot change what the results in %s were trained with: %s", o.file,
			strings.Join(search.Diff(study, s), "; "))}
	}
	return s, nil
}
