package main

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"igcsearch/cmd/igcsearch/report"
	"igcsearch/search"
	"igcsearch/trainer"
	"igcsearch/trainer/dataset"
)

type picturesOptions struct {
	study, db, data string
	set             []string
	seed            int // −1: not given
	format, output  string
}

func newPicturesCommand() *cobra.Command {
	var o picturesOptions
	cmd := &cobra.Command{
		Use:   "pictures STUDY",
		Short: "List the pictures of each split, to train on the same ones elsewhere",
		Long: `pictures lists which pictures a study trains on, which it holds out for validation
and which it tests on. It trains nothing. csv has a row for each picture:

  split    train, validation or test
  number   its place in the list of all training pictures, or of all test pictures, in
           the order of the official files, from 0: the index of torchvision's data sets
  file     the official file, or of a folder the picture itself
  index    its place in this file, from 0
  label    the number of its class, from 0
  class    the name of its class

json has the numbers of each split as a list. Both name the checksums: data_sum is the
one that exports of the study have, and split_sum is over the labels and pixels of the
three splits (docs/study-files.md says how to compute it).

With split_per_seed in the study, each seed has a split of its own (--seed). A study
that is in the database is listed with its stored settings.`,
		Example: `  igcsearch pictures quickstart
  igcsearch pictures quickstart --set validation=300 -o split.json`,
		Args:              oneStudy,
		ValidArgsFunction: completeStudies,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.study = args[0]
			if !cmd.Flags().Changed("seed") {
				o.seed = -1
			} else if o.seed < 0 {
				return usageError{fmt.Errorf("--seed %d: want 0 or more", o.seed)}
			}
			if !cmd.Flags().Changed("format") && strings.EqualFold(filepath.Ext(o.output), ".json") {
				o.format = "json"
			}
			return runPictures(cmd.Context(), o, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	addDB(cmd, &o.db)
	addData(cmd, &o.data)
	addSet(cmd, &o.set, "override one setting of the study")
	cmd.Flags().IntVar(&o.seed, "seed", 0, "the seed whose split is listed, where the study has split_per_seed")
	addChoice(cmd, &o.format, "format", "what to write", "csv", "json")
	cmd.Flags().StringVarP(&o.output, "output", "o", "",
		"the `FILE` to write in place of standard output; an existing file is replaced")
	return cmd
}

func runPictures(ctx context.Context, o picturesOptions, stdout, stderr io.Writer) error {
	if err := checkOutput("--output", o.output, o.db); err != nil {
		return err
	}
	study, err := studyToTrain(ctx, o.study, o.set, o.db, stderr)
	if err != nil {
		return err
	}
	if study.SplitPerSeed && o.seed < 0 {
		return usageError{errors.New("--seed is missing: in this study each seed has a split of its own (split_per_seed)")}
	}
	train := trainer.New(trainer.Options{DataDir: o.data})
	data, err := train.Load(ctx, study)
	if err != nil {
		return err
	}
	// What --set changes is another study, which need not have the pictures of the stored one.
	if study.DataSum != "" && study.DataSum != data.Sum && len(o.set) == 0 {
		return fmt.Errorf("these are other pictures than those of %s in %s (checksum %.8s there, %.8s here)", study.Name,
			o.db, study.DataSum, data.Sum)
	}
	identify(&study, data, stderr)
	set, err := train.Pictures(ctx, study, max(o.seed, 0))
	if err != nil {
		return err
	}
	write := writePicturesCSV
	if o.format == "json" {
		write = writePicturesJSON
	}
	listed := listing{study, max(o.seed, 0), set}
	if o.output == "" {
		err = write(stdout, listed)
	} else {
		err = writeFile(o.output, func(w io.Writer) error { return write(w, listed) })
	}
	if err != nil {
		return err
	}
	data.Train, data.Validation, data.Test = set.Train.Len(), set.Validation.Len(), set.Test.Len()
	of := study.Name
	if study.SplitPerSeed {
		of += fmt.Sprintf(" seed %d", listed.seed)
	}
	_, err = fmt.Fprintf(stderr, "%s: %s of %s\ndata_sum  %s\nsplit_sum %s\n", of, pictures(data),
		report.DatasetLabel(study.Dataset), set.Sum, set.SplitSum())
	return err
}

// listing is the pictures of a study, or of one of its seeds.
type listing struct {
	study search.Study
	seed  int
	*dataset.Set
}

// splits are those that have pictures.
func (l listing) splits() (names []string, of map[string]*dataset.Split) {
	of = map[string]*dataset.Split{search.SplitTrain: &l.Train, search.SplitValidation: &l.Validation,
		search.SplitTest: &l.Test}
	for _, name := range []string{search.SplitTrain, search.SplitValidation, search.SplitTest} {
		if of[name].Len() > 0 {
			names = append(names, name)
		}
	}
	return names, of
}

func writePicturesCSV(w io.Writer, l listing) error {
	out := csv.NewWriter(w)
	out.Write([]string{"split", "number", "file", "index", "label", "class"}) // out keeps an error until the end
	names, splits := l.splits()
	for _, name := range names {
		for i, label := range splits[name].Labels {
			o := l.Origin(splits[name], i)
			out.Write([]string{name, strconv.Itoa(o.Number), search.Printable(o.File), strconv.Itoa(o.Index),
				strconv.Itoa(int(label)), search.Printable(l.Classes[label])})
		}
	}
	out.Flush()
	return out.Error()
}

func writePicturesJSON(w io.Writer, l listing) error {
	type split struct {
		Name    string   `json:"split"`
		Numbers []int    `json:"numbers"`
		Labels  []uint16 `json:"labels"`
		Files   []string `json:"files,omitempty"` // of a folder
	}
	list := struct {
		Study        string   `json:"study"`
		Dataset      string   `json:"dataset"`
		SplitSeed    int      `json:"split_seed"`
		SplitPerSeed bool     `json:"split_per_seed"`
		Seed         *int     `json:"seed,omitempty"` // with SplitPerSeed
		DataSum      string   `json:"data_sum"`
		SplitSum     string   `json:"split_sum"`
		Classes      []string `json:"classes"`
		Splits       []split  `json:"splits"`
	}{l.study.Name, l.study.Dataset, l.study.SplitSeed, l.study.SplitPerSeed, nil, l.Sum, l.SplitSum(), l.Classes, nil}
	if l.study.SplitPerSeed {
		list.Seed = &l.seed
	}
	names, splits := l.splits()
	for _, name := range names {
		s := split{Name: name, Labels: splits[name].Labels}
		for i := range s.Labels {
			o := l.Origin(splits[name], i)
			s.Numbers = append(s.Numbers, o.Number)
			if l.study.Dataset == "folder" {
				s.Files = append(s.Files, o.File)
			}
		}
		list.Splits = append(list.Splits, s)
	}
	return json.NewEncoder(w).Encode(list)
}
