package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"igcsearch/cmd/igcsearch/report"
	"igcsearch/store"
	"igcsearch/studies"
)

type paperOptions struct {
	table, db, format string
	split             string // "": what each study says
	dbAsked           bool   // --db is given
}

func newPaperCommand() *cobra.Command {
	var o paperOptions
	cmd := &cobra.Command{
		Use:   "paper " + strings.Join(studies.PaperTables, "|"),
		Short: "Compare a table of the paper with ours",
		Long: `paper shows each cell of a table of the paper beside ours, and the difference.
Parameters and multiply–adds are computed, in as many digits as the paper prints.
Accuracies and errors are those of the shipped study of that name in the
database, or of its -short form where the full one has no result: mean ± standard
deviation over n seeds; where neither has one, the command that would measure it.
Top-5 errors are not measured: ours is blank there.`,
		Example: `  # all digits of Table 3
  igcsearch paper table3

  # what is measured of Table 4 so far
  igcsearch paper table4 --db igcsearch.db

  # for a paper of your own
  igcsearch paper fig3 --format latex > fig3.tex`,
		ValidArgs: studies.PaperTables,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 || !slices.Contains(studies.PaperTables, args[0]) {
				return fmt.Errorf("paper: want one of %s, got %q", strings.Join(studies.PaperTables, ", "), args)
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			o.table, o.dbAsked = args[0], cmd.Flags().Changed("db")
			return runPaper(cmd.Context(), o, cmd.OutOrStdout())
		},
	}
	addDB(cmd, &o.db)
	addShown(cmd, &o.split)
	addChoice(cmd, &o.format, "format", "how to print the cells", "table", "csv", "markdown", "latex")
	return cmd
}

func runPaper(ctx context.Context, o paperOptions, stdout io.Writer) error {
	cells, err := studies.Paper(o.table)
	if err != nil {
		return usageError{err}
	}
	var db *store.DB
	var stored []store.StudyInfo
	if slices.ContainsFunc(cells, func(c studies.Cell) bool { return c.Study != "" }) {
		db, err = openReader(ctx, o.db)
		switch {
		case errors.Is(err, fs.ErrNotExist) && !o.dbAsked: // nothing is measured yet
		case err != nil:
			return err
		default:
			defer db.Close()
			if stored, err = db.Studies(ctx); err != nil {
				return err
			}
		}
	}
	known := map[string]*report.Results{}
	p, err := report.NewPaper(o.table, cells, func(name string) (*report.Results, error) {
		if known[name] == nil && slices.ContainsFunc(stored, func(s store.StudyInfo) bool { return s.Name == name }) {
			r, err := readShown(ctx, db, name, o.split)
			if err != nil {
				return nil, err
			}
			if len(r.Study.Axes) > 0 {
				return nil, fmt.Errorf("paper: study %s has lists of settings, %s, and the paper one value of each", name,
					lists(r.Study.Axes))
			}
			known[name] = &r
		}
		return known[name], nil
	})
	if err != nil {
		return err
	}
	return p.Print(stdout, o.format)
}
