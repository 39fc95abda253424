package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"igcsearch/cmd/igcsearch/report"
	"igcsearch/store"
)

type mergeOptions struct {
	sources []string
	output  string
}

func newMergeCommand() *cobra.Command {
	var o mergeOptions
	cmd := &cobra.Command{
		Use:   "merge DB DB… -o DB",
		Short: "Join databases of studies that ran on several machines",
		Long: `merge writes a new database with the studies of several. Studies of the same name
must train in the same way; the new one has the networks and seeds of all. If several
have a trial, the result with more epochs and the attempts of all are kept. If their
epochs differ in a bit, as they do on different instruction sets, merge refuses, names
the trials, and writes nothing.`,
		Example: `  igcsearch merge igcsearch.db -o all.db`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return errors.New("want the databases to merge")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			o.sources = args
			return runMerge(cmd.Context(), o, cmd.OutOrStdout())
		},
	}
	cmd.Flags().StringVarP(&o.output, "output", "o", "", "the new database `FILE`")
	return cmd
}

func runMerge(ctx context.Context, o mergeOptions, stdout io.Writer) error {
	if o.output == "" {
		return usageError{errors.New("--output is missing: give the new database, like -o all.db")}
	}
	for _, source := range o.sources {
		if err := notAccess(source); err != nil {
			return err
		}
	}
	infos, err := mergeInto(ctx, o)
	if err != nil {
		return err
	}
	for _, i := range infos {
		done, all := 0, 0
		for status, n := range i.Counts {
			all += n
			if status.Finished() {
				done += n
			}
		}
		fmt.Fprintf(stdout, "%s: %d of %s finished\n", i.Name, done, report.Count(all, "trial"))
	}
	return nil
}

// mergeInto makes the new database, which appears when all is in it.
func mergeInto(ctx context.Context, o mergeOptions) (infos []store.StudyInfo, err error) {
	var sources []*store.DB
	for _, path := range o.sources { // before a database is made
		source, err := store.OpenReadOnly(ctx, path)
		if err != nil {
			return nil, err
		}
		defer source.Close()
		sources = append(sources, source)
	}
	err = store.Create(ctx, o.output, func(db *store.DB) error {
		for i, source := range sources {
			if err := mergeFrom(ctx, db, source); err != nil {
				return fmt.Errorf("merge %s: %w", o.sources[i], err)
			}
		}
		infos, err = db.Studies(ctx)
		return err
	})
	return infos, err
}

func mergeFrom(ctx context.Context, db, source *store.DB) error {
	studies, err := source.Studies(ctx)
	if err != nil {
		return err
	}
	for _, s := range studies {
		from, err := source.Source(ctx, s.Name)
		if err != nil {
			return err
		}
		_, err = db.Bring(ctx, from)
		if conflict := (*store.ConflictError)(nil); errors.As(err, &conflict) {
			return fmt.Errorf("study %q has other settings than in a file before it: %s: give one of them another name "+
				"(igcsearch rename), or keep them apart", s.Name, strings.Join(conflict.Diff, "; "))
		}
		if err != nil {
			return err
		}
	}
	return nil
}
