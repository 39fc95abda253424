package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"igcsearch/cmd/igcsearch/progress"
	"igcsearch/cmd/igcsearch/report"
	"igcsearch/search"
	"igcsearch/trainer/dataset"
)

type dataOptions struct {
	name string
	data string
	url  string // "": the official one
}

// downloads are the data sets that data get downloads.
var downloads = []string{"cifar10", "cifar100", "svhn"}

func newDataCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "data",
		Short: "Get the pictures of CIFAR and SVHN, and check pictures",
		Long: `data downloads the pictures for studies of cifar10, cifar100, cifar100-coarse and
svhn, and checks pictures that are there.`,
		Example: `  igcsearch data get cifar100 --data pictures
  igcsearch data check folder --data photographs`,
	}
	cmd.AddCommand(newDataGetCommand(), newDataCheckCommand())
	helpOnly(cmd)
	return cmd
}

func newDataGetCommand() *cobra.Command {
	var o dataOptions
	cmd := &cobra.Command{
		Use:   "get " + strings.Join(downloads, "|"),
		Short: "Download CIFAR-10, CIFAR-100 or SVHN and check it",
		Long: `get downloads the official files, checks their checksums and unpacks them: the
binary archive of CIFAR-10 or CIFAR-100 (about 170 MB), or the three files of
SVHN's cropped digits (1.6 GB). An interrupted download continues where it stopped,
and a file that exists is not downloaded again: an archive that lies in DIR, also one
of CIFAR's Python version, is only unpacked, and a folder of that version is read as it
is. cifar100 and cifar100-coarse have the same files.`,
		Example: `  igcsearch data get cifar100 --data pictures
  igcsearch run fig3a-short --data pictures`,
		ValidArgs: downloads,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 || !slices.Contains(downloads, args[0]) {
				return fmt.Errorf("data get: want one of %s, got %q", strings.Join(downloads, ", "), args)
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			o.name = args[0]
			return runDataGet(cmd.Context(), o, cmd.ErrOrStderr())
		},
	}
	addData(cmd, &o.data)
	cmd.Flags().StringVar(&o.url, "url", "",
		"download from this mirror `URL`, for svhn the folder with the three files; checksums are the official ones")
	return cmd
}

func runDataGet(ctx context.Context, o dataOptions, stderr io.Writer) error {
	if o.data == "" {
		return usageError{errors.New("--data is missing: give a folder for the pictures, or set IGCSEARCH_DATA for" +
			" all commands")}
	}
	show := newDownload(o.name, stderr)
	err := dataset.Get(ctx, dataset.GetOptions{
		Name: o.name, Dir: o.data, URL: o.url, Progress: show.progress, Note: show.note,
	})
	show.close()
	if ctx.Err() != nil {
		fmt.Fprintf(stderr, "igcsearch: stopped; what was downloaded is kept. Continue with:\n  %s\n", commandLine())
	}
	return err
}

// download shows a bar on a terminal and a line every few seconds elsewhere.
type download struct {
	name string
	out  io.Writer
	last time.Time

	container *mpb.Progress // nil: lines
	bar       *mpb.Bar      // nil before the first byte
}

func newDownload(name string, stderr io.Writer) *download {
	d := &download{name: name, out: stderr, last: time.Now()}
	if progress.IsTerminal(stderr) {
		d.container = mpb.New(mpb.WithOutput(report.Unwrap(stderr)), mpb.WithWidth(60))
		d.out = d.container
	}
	return d
}

// between is the time between two lines, off a terminal.
const between = 5 * time.Second

func (d *download) progress(done, total int64) {
	if d.container == nil {
		if time.Since(d.last) >= between {
			d.last = time.Now()
			d.note(fmt.Sprintf("%s: %s", d.name, megabytes(done, total)))
		}
		return
	}
	if d.bar == nil {
		speed, left := decor.AverageSpeed(decor.SizeB1000(0), " % .1f "), decor.AverageETA(decor.ET_STYLE_GO)
		d.bar = d.container.AddBar(max(total, 0), mpb.BarRemoveOnComplete(),
			mpb.PrependDecorators(decor.Name(d.name+" "), decor.CountersKiloByte("% .1f / % .1f")),
			mpb.AppendDecorators(speed, left))
	}
	if total > 0 {
		d.bar.SetTotal(total, false)
	}
	d.bar.SetCurrent(done)
}

func megabytes(done, total int64) string {
	if total <= 0 {
		return fmt.Sprintf("%.1f MB", float64(done)/1e6)
	}
	return fmt.Sprintf("%.1f of %.1f MB", float64(done)/1e6, float64(total)/1e6)
}

func (d *download) note(line string) { fmt.Fprintln(d.out, search.PrintableLine(line)) }

func (d *download) close() {
	if d.bar != nil {
		d.bar.Abort(true)
	}
	if d.container != nil {
		d.container.Wait()
	}
}
