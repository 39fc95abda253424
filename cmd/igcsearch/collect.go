package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"igcsearch/cmd/igcsearch/report"
	"igcsearch/search"
	"igcsearch/store"
	"igcsearch/store/spool"
)

type collectOptions struct {
	dirs []string
	db   string
}

func newCollectCommand() *cobra.Command {
	var o collectOptions
	cmd := &cobra.Command{
		Use:   "collect DIR…",
		Short: "Copy what workers trained in a shared folder into a database",
		Long: `collect copies the results that igcsearch worker --spool DIR left in its folder
into a database. It may be repeated, while workers train and after them, and copies
nothing twice. Unfinished trials are copied with their last state, so that igcsearch
run continues them. The folder is only read.

If the database has a trial too, the result with more epochs is kept. If epochs of
the two differ in a bit, as they do on different instruction sets, collect refuses,
names the trials, and stores nothing.`,
		Example: `  igcsearch collect quickstart.spool`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return errors.New("want the folders that were given to workers as --spool")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			o.dirs = args
			return runCollect(cmd.Context(), o, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	addDB(cmd, &o.db)
	return cmd
}

func runCollect(ctx context.Context, o collectOptions, stdout, stderr io.Writer) error {
	spools := make([]*spool.Snapshot, len(o.dirs))
	for i, dir := range o.dirs { // an error here must not leave a new database
		var err error
		if spools[i], err = spool.Read(dir, noteOf("collect", stderr)); err != nil {
			return err
		}
	}
	db, err := openWriter(ctx, o.db)
	if err != nil {
		return err
	}
	defer db.Close()
	for i, dir := range o.dirs {
		if err := collectSpool(ctx, db, spools[i], dir, o.db, stdout); err != nil {
			return err
		}
	}
	return nil
}

func collectSpool(ctx context.Context, db *store.DB, s *spool.Snapshot, dir, path string, stdout io.Writer) error {
	latest := make([]search.Record, len(s.Trials))
	from := store.Source{Study: s.Study, Trials: s.Trials, Load: func(i int, states bool) (r search.Record, err error) {
		if err := ctx.Err(); err != nil {
			return r, err
		}
		latest[i], err = s.Load(i, states)
		return latest[i], err
	}}
	list, err := db.Bring(ctx, from)
	if err != nil {
		return fmt.Errorf("collect %s: %w", dir, err)
	}
	finished, taken := 0, 0
	var running, busy []string
	for i, b := range list {
		t := latest[i]
		name := t.Key.String()
		if b.Taken {
			taken++
		}
		if b.Busy {
			busy = append(busy, name)
		}
		switch {
		case t.Status.Finished():
			finished++
		case t.Status == search.Running:
			where := ""
			if k := len(t.Attempts); k > 0 {
				a := t.Attempts[k-1]
				where = " on " + a.Host
				if a.Job != "" {
					where += ", " + a.Job
				}
			}
			running = append(running,
				fmt.Sprintf("%s after %d of %s%s", name, t.Epoch, report.Count(t.Epochs, "epoch"), where))
		}
	}
	name := s.Study.Name
	_, err = fmt.Fprintf(stdout, "%s: %d of %s finished in %s, %d copied into %s\n",
		name, finished, report.Count(len(list), "trial"), dir, taken, path)
	if err != nil {
		return err
	}
	if len(running) > 0 {
		fmt.Fprintf(stdout, "%s: still running, unless their workers died:\n  %s\n",
			name, strings.Join(running, "\n  "))
	}
	if len(busy) > 0 {
		fmt.Fprintf(stdout, "%s: left out, because a run of %s trains them now: %s: collect again after it\n",
			name, path, strings.Join(busy, ", "))
	}
	return nil
}
