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
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"sync"
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
	exitFound       = 3   // doctor: something is wrong and not repaired
	exitInterrupted = 130 // as a shell reports SIGINT
)

// run executes one command line and returns the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := newRootCommand()
	root.SetArgs(args)
	out := &output{Writer: stdout}
	root.SetOut(out)
	root.SetErr(stderr)
	cmd, err := root.ExecuteContextC(ctx)
	if failed := out.failed(); failed != nil {
		err = failed
	}
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
		return err.Error() + "\ngive this one another name (--set name=NEW) or another database (--db FILE)"
	}
	return strings.Join(strings.FieldsFunc(err.Error(), func(r rune) bool { return r == '\n' }), "; ")
}

// usageError is an error in the command line itself.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// foundError says that doctor found something that is not repaired.
type foundError struct{ error }

// output is the standard output. It remembers an error of writing, so that no command must look for one after each
// line that it prints, and none ends well if the disk behind its output is full.
type output struct {
	io.Writer
	mu  sync.Mutex
	err error
}

func (o *output) Write(p []byte) (int, error) {
	n, err := o.Writer.Write(p)
	if err != nil {
		o.mu.Lock()
		o.err = cmp.Or(o.err, err)
		o.mu.Unlock()
	}
	return n, err
}

// failed is the first error of writing.
func (o *output) failed() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err == nil {
		return nil
	}
	return fmt.Errorf("not all of the output could be written: %w", o.err)
}

// errHelp ends a command line that names no command, after its help was printed.
var errHelp = errors.New("a command is missing")
