package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"igcsearch/cmd/igcsearch/report"
	"igcsearch/search"
	"igcsearch/space"
	"igcsearch/store"
	"igcsearch/store/spool"
	"igcsearch/studies"
)

type retryOptions struct {
	study, db, status string
	spool             string // in place of a database
	pairs             pairs
	seeds             seeds
}

func newRetryCommand() *cobra.Command {
	var o retryOptions
	cmd := &cobra.Command{
		Use:   "retry STUDY",
		Short: "Let trials that failed be tried again",
		Long: `retry makes failed trials of a study pending again, or diverged ones, and resets
their count of failures. The next run trains them. A failed trial continues from
its last checkpoint. A diverged trial starts anew, and diverges again on the same
device.`,
		Example: `  igcsearch retry quickstart --status failed

  # only these
  igcsearch retry quickstart --status failed,diverged --pairs 9x2,18x1 --seeds 0`,
		Args:              oneStudy,
		ValidArgsFunction: completeStudies,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.study = args[0]
			return runRetry(cmd.Context(), o, cmd.OutOrStdout())
		},
	}
	addDB(cmd, &o.db)
	cmd.Flags().StringVar(&o.spool, "spool", "",
		"the `DIR` that the workers of the study share, in place of a database")
	cmd.Flags().StringVar(&o.status, "status", string(search.Failed),
		"which trials: failed, diverged, or both with a comma between")
	cmd.Flags().Var(&o.pairs, "pairs", "only trials of these pairs (default all)")
	cmd.Flags().Var(&o.seeds, "seeds", "only trials from these seeds (default all)")
	return cmd
}

func runRetry(ctx context.Context, o retryOptions, stdout io.Writer) error {
	var statuses []search.Status
	for text := range strings.SplitSeq(o.status, ",") {
		s := search.Status(strings.TrimSpace(text))
		if s != search.Failed && s != search.Diverged {
			return usageError{fmt.Errorf("--status %q: want failed, diverged, or both with a comma between", o.status)}
		}
		statuses = append(statuses, s)
	}
	match := func(s space.System, seed int) bool {
		isPair := len(o.pairs) == 0 || slices.Contains(o.pairs, s.Pair())
		return isPair && (len(o.seeds) == 0 || slices.Contains(o.seeds, seed))
	}
	retry := retryDB
	if o.spool != "" {
		retry = retrySpool
	}
	study, again, err := retry(ctx, o, statuses, match)
	if err != nil {
		return err
	}
	for _, t := range again {
		fmt.Fprintf(stdout, "%v was %s: %s\n", t.Key, t.Status, t.Error)
	}
	_, err = fmt.Fprintf(stdout, "%s: %s to be tried again\n", study.Name, report.Count(len(again), "trial"))
	return err
}

func retryDB(
	ctx context.Context, o retryOptions, statuses []search.Status, match func(space.System, int) bool,
) (search.Study, []search.Trial, error) {
	db, found, err := openStudy(ctx, o.db, o.study)
	if err != nil {
		return found.Study, nil, err
	}
	defer db.Close()
	again, err := db.Retry(ctx, found.Study.Name, statuses, match)
	return found.Study, again, err
}

func retrySpool(
	ctx context.Context, o retryOptions, statuses []search.Status, match func(space.System, int) bool,
) (search.Study, []search.Trial, error) {
	there, err := spool.Read(o.spool, nil)
	if err != nil {
		return search.Study{}, nil, err
	}
	name := o.study
	if _, err := os.Stat(name); err == nil && name != there.Study.Name {
		file, err := studies.Load(name, nil)
		if err != nil {
			return file, nil, err
		}
		name = file.Name
	}
	if there.Study.Name != name {
		return there.Study, nil, fmt.Errorf("spool %s is of study %q: give that, or another --spool", o.spool,
			there.Study.Name)
	}
	folder, err := spool.Open(o.spool, spool.Options{})
	if err != nil {
		return there.Study, nil, err
	}
	defer folder.Close()
	if _, err := folder.Plan(ctx, there.Study, there.Trials); err != nil {
		return there.Study, nil, err
	}
	again, err := folder.Retry(ctx, statuses, match)
	return there.Study, again, err
}

// existing returns an error if there is no database at the path. store.Open would create one.
func existing(ctx context.Context, path string) error {
	if err := notAccess(path); err != nil {
		return err
	}
	db, err := store.OpenReadOnly(ctx, path)
	if err != nil {
		return err
	}
	return db.Close()
}
