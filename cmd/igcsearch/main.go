// Command igcsearch searches the pair (L, M) of interleaved group convolutions
// that is best under a parameter budget: it lists the pairs of a budget,
// trains a network of each from several seeds, and draws accuracy against M.
// A run can be stopped at any moment, and the same command goes on where it was.
//
// Data go to standard output, progress and warnings to standard error. Exit
// codes: 0 done, 1 failed, 2 wrong usage, 3 doctor found something that is not
// repaired, 130 interrupted.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"igcsearch/cmd/igcsearch/report"
	"igcsearch/store"
)

func main() {
	log.SetOutput(report.NewText(os.Stderr)) // that of net/http
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the program at once
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// The exit codes of the program.
const (
	exitOK          = 0
	exitFailure     = 1
	exitUsage       = 2
	exitFound       = 3   // doctor: something is wrong and not repaired
	exitInterrupted = 130 // as a shell reports SIGINT
	exitPipe        = 141 // as a shell reports SIGPIPE
)

// run executes one command line and returns the exit code. All that it prints goes
// through report.Text, because hosts, files and servers have a say in it.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	out, errs := report.NewText(stdout), report.NewText(stderr)
	defer errs.Flush()
	root := newRootCommand()
	root.SetArgs(args)
	root.SetOut(out)
	root.SetErr(errs)
	cmd, err := root.ExecuteContextC(ctx)
	if e := out.Flush(); e != nil {
		err = fmt.Errorf("not all of the output could be written: %w", e)
	}
	return exitCode(ctx, cmd, err, errs)
}

// exitCode says why a command failed, and returns the exit code.
func exitCode(ctx context.Context, cmd *cobra.Command, err error, stderr io.Writer) int {
	var usage usageError
	var output *fs.PathError
	switch {
	case err == nil:
		return exitOK
	case ctx.Err() != nil:
		fmt.Fprintln(stderr, "igcsearch: interrupted")
		return exitInterrupted
	case errors.Is(err, syscall.EPIPE) && errors.As(err, &output) && output.Path == os.Stdout.Name():
		return exitPipe // whoever read the output has had enough, and needs no message
	case errors.Is(err, errHelp):
		return exitUsage
	case errors.As(err, &usage):
		fmt.Fprintf(stderr, "igcsearch: %s (see %s --help)\n", message(err), cmd.CommandPath())
		return exitUsage
	case errors.As(err, new(foundError)):
		fmt.Fprintf(stderr, "igcsearch: %s\n", message(err))
		return exitFound
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
			why = "\nlonger or shorter trainings are other trainings, because the learning rate falls with the share of " +
				"the epochs that is over:"
		}
		give := "give this one another name (--set name=NEW) or another database (--db FILE)"
		if list := listAdvice(conflict.Diff); list != "" {
			give = list + ", or " + give
		}
		return err.Error() + why + "\n" + give
	}
	return strings.Join(strings.FieldsFunc(err.Error(), func(r rune) bool { return r == '\n' }), "; ")
}

// usageError is an error in the command line itself.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// foundError says that doctor found something that is not repaired.
type foundError struct{ error }

// errHelp ends a command line that names no command, after its help was printed.
var errHelp = errors.New("a command is missing")
