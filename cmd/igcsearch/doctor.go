package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"igcsearch/cmd/igcsearch/report"
	"igcsearch/store"
)

type doctorOptions struct {
	db             string
	repair, vacuum bool
}

func newDoctorCommand() *cobra.Command {
	var o doctorOptions
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Examine a database: damage, what contradicts itself, sizes; repair it",
		Long: `doctor examines a database. It runs SQLite's own check of the file, compares the
checksums of all checkpoints and the settings with their fingerprint, looks for
trials whose process is gone, and for everything that contradicts itself: missing
epochs, counts and learning rates that do not fit the study, trials that are not
what their attempts say. It shows what takes how much space. It may run while
studies run.

It says what it would repair, and repairs it with --repair only: what is wrong is
removed, and the next run trains it again, to the same bits. It leaves the trials
of running processes alone. What it cannot repair it names without a remedy.

The exit code is 3 if something was found and not repaired, and 1 if the file itself
is damaged.`,
		Example: `  igcsearch doctor

  # repair what it finds, and give free space back
  igcsearch doctor --repair --vacuum`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			return runDoctor(cmd.Context(), o, cmd.OutOrStdout())
		},
	}
	addDB(cmd, &o.db)
	cmd.Flags().BoolVar(&o.repair, "repair", false, "repair what is found")
	cmd.Flags().BoolVar(&o.vacuum, "vacuum", false, "give free space of the file back to the disk; no other process"+
		" can write meanwhile")
	return cmd
}

func runDoctor(ctx context.Context, o doctorOptions, stdout io.Writer) error {
	h, err := examine(ctx, o.db)
	if err != nil {
		return err
	}
	t := report.NewTable("<table", "rows", "content")
	for _, s := range h.Tables {
		t.Add(s.Name, strconv.FormatInt(s.Rows, 10), humanize.IBytes(uint64(s.Bytes)))
	}
	where := "on a local disk"
	if h.Network != "" {
		where = fmt.Sprintf("on a network file system (%s): one process at a time can work on it", h.Network)
	}
	bytes := func(n int64) string { return humanize.IBytes(uint64(n)) }
	fmt.Fprintf(stdout, "%s: schema version %d, %s; %s, of which %s free; write-ahead log %s\n\n%s\n",
		o.db, h.Version, where, bytes(h.FileBytes), bytes(h.FreeBytes), bytes(h.WALBytes), t)
	if h.LogMissing {
		fmt.Fprintf(stdout, "%[1]s was in use when it was last written, and there is no %[1]s-wal beside it: if it is a "+
			"copy, or that file was removed, what was stored last is missing; copy a database with igcsearch backup\n",
			o.db)
	}
	for _, w := range h.Workers {
		if !w.Dead {
			fmt.Fprintf(stdout, "process %d on %s runs %s\n", w.PID, w.Host, report.Count(w.Trials, "trial"))
		}
	}
	for _, d := range h.Damage {
		fmt.Fprintf(stdout, "damaged: %s\n", d)
	}
	for _, f := range h.Findings {
		fmt.Fprintln(stdout, f)
	}
	if len(h.Damage) > 0 {
		return fmt.Errorf("%s is damaged: copy it first, then recover what is left with: sqlite3 FILE .recover", o.db)
	}
	if len(h.Findings) == 0 {
		fmt.Fprintln(stdout, "nothing to repair")
	}
	if !o.repair && !o.vacuum {
		return o.found(h)
	}
	db, err := openWriter(ctx, o.db)
	if err != nil {
		return err
	}
	if o.repair {
		err = db.Repair(ctx)
	}
	if err == nil && o.vacuum {
		err = db.Vacuum(ctx)
	}
	if err = errors.Join(err, db.Close()); err != nil {
		return err
	}
	if h, err = examine(ctx, o.db); err != nil {
		return err
	}
	done := "repaired"
	if !o.repair {
		done = "vacuumed"
	}
	fmt.Fprintf(stdout, "%s; left to repair: %d; %s, of which %s free\n", done, len(h.Findings), bytes(h.FileBytes),
		bytes(h.FreeBytes))
	if o.repair {
		for _, f := range h.Findings {
			fmt.Fprintf(stdout, "left: %s\n", f)
		}
	}
	return o.found(h)
}

// found is the error of findings that are left.
func (o doctorOptions) found(h store.Health) error {
	mendable := slices.ContainsFunc(h.Findings, func(f store.Finding) bool { return f.Repair != "" })
	n := report.Count(len(h.Findings), "finding")
	switch {
	case len(h.Findings) == 0:
		return nil
	case mendable && !o.repair:
		return foundError{fmt.Errorf("doctor %s: %s: repair it with --repair", o.db, n)}
	}
	return foundError{fmt.Errorf("doctor %s: %s that --repair cannot repair", o.db, n)}
}

func examine(ctx context.Context, path string) (store.Health, error) {
	if err := notAccess(path); err != nil {
		return store.Health{}, err
	}
	db, err := store.OpenReadOnly(ctx, path)
	if err != nil {
		return store.Health{}, err
	}
	defer db.Close()
	return db.Examine(ctx)
}
