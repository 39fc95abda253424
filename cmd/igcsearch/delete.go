package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"igcsearch/cmd/igcsearch/progress"
	"igcsearch/cmd/igcsearch/report"
)

type deleteOptions struct {
	study, db string
	yes       bool
}

func newDeleteCommand() *cobra.Command {
	var o deleteOptions
	cmd := &cobra.Command{
		Use:   "delete STUDY",
		Short: "Delete a stored study with all its results",
		Long: `delete removes a study from a database: its trials, epochs, attempts and checkpoints.
Nothing brings them back. On a terminal it asks before; elsewhere it needs --yes. It is
refused while processes train the study. The room in the file is used again by other
studies; igcsearch doctor --vacuum gives it back to the disk.`,
		Example:           `  igcsearch delete twenty-epochs --yes`,
		Args:              oneStudy,
		ValidArgsFunction: completeStudies,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.study = args[0]
			return runDelete(cmd.Context(), o, cmd.InOrStdin(), cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	addDB(cmd, &o.db)
	cmd.Flags().BoolVar(&o.yes, "yes", false, "do not ask")
	return cmd
}

func runDelete(ctx context.Context, o deleteOptions, stdin io.Reader, stdout, stderr io.Writer) error {
	db, found, err := openStudy(ctx, o.db, o.study)
	if err != nil {
		return err
	}
	defer db.Close()
	name, epochs := found.Study.Name, 0
	for _, t := range append(found.Trials, found.Outside...) {
		epochs += t.Epoch
	}
	what := fmt.Sprintf("%s with %s and %s", name, report.Count(len(found.Trials)+len(found.Outside), "trial"),
		report.Count(epochs, "epoch"))
	if !o.yes {
		if !progress.IsTerminal(stderr) {
			return usageError{fmt.Errorf("delete %s: it cannot be undone: give --yes", what)}
		}
		fmt.Fprintf(stderr, "delete %s from %s? It cannot be undone. [y/N] ", what, o.db)
		answer, err := bufio.NewReader(stdin).ReadString('\n')
		if answer = strings.ToLower(strings.TrimSpace(answer)); answer != "y" && answer != "yes" {
			if err != nil && !errors.Is(err, io.EOF) {
				return err
			}
			return errors.New("nothing was deleted")
		}
	}
	if err := db.Delete(ctx, name); err != nil {
		return err
	}
	h, err := db.Examine(ctx)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(stdout, "deleted %s; %s of %s are free now: "+
		"igcsearch doctor --vacuum gives them back to the disk\n", what, humanize.IBytes(uint64(h.FreeBytes)), o.db)
	return err
}
