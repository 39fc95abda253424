// Command igcsearch searches the pair (L, M) of interleaved group convolutions
// that is best under a parameter budget: it lists the pairs of a budget,
// trains a network of each from several seeds, and draws accuracy against M.
// A run can be stopped at any moment, and the same command goes on where it was.
//
// Data go to standard output, progress and warnings to standard error. Exit
// codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"igcsearch/store"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the program at once
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// The exit codes of the program.
const (
	exitOK          = 0
	exitFailure     = 1
	exitUsage       = 2
	exitInterrupted = 130 // as a shell reports SIGINT
)

// run executes one command line and returns the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := newRootCommand()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	cmd, err := root.ExecuteContextC(ctx)
	var usage usageError
	switch {
	case err == nil:
		return exitOK
	case ctx.Err() != nil:
		fmt.Fprintln(stderr, "igcsearch: interrupted")
		return exitInterrupted
	case errors.Is(err, errHelp):
		return exitUsage
	case errors.As(err, &usage):
		fmt.Fprintf(stderr, "igcsearch: %s (see %s --help)\n", message(err), cmd.CommandPath())
		return exitUsage
	default:
		fmt.Fprintf(stderr, "igcsearch: %s\n", message(err))
		return exitFailure
	}
}

// message returns the text of err and the advice for it. It is one line, except
// for a conflict of settings, which is a list.
func message(err error) string {
	err = advised(err)
	var conflict *store.ConflictError
	if errors.As(err, &conflict) {
		why := ""
		if slices.ContainsFunc(conflict.Diff, func(line string) bool { return strings.HasPrefix(line, "epochs: ") }) {
			why = "\nlonger or shorter trainings are another study, because the learning rate falls with the share of " +
				"the epochs that is over:"
		}
		return err.Error() + why + "\ngive this one another name (--set name=NEW) or another database (--db FILE)"
	}
	return strings.Join(strings.FieldsFunc(err.Error(), func(r rune) bool { return r == '\n' }), "; ")
}

// usageError is an error in the command line itself.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// errHelp ends a command line that names no command, after its help was printed.
var errHelp = errors.New("a command is missing")
