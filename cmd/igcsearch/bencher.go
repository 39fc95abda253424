package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"igcsearch/cmd/igcsearch/progress"
	"igcsearch/cmd/igcsearch/report"
	"igcsearch/search"
	"igcsearch/space"
)

// bencher writes measurements as they come: what was measured must not wait for what
// may fail.
type bencher struct {
	benchOptions
	list           []space.System
	stdout, stderr io.Writer
	file           *os.File // of --output; nil without

	columns []report.Column // of the table, the first ones those of name
	rows    *report.Rows    // nil before the first row, and with --format json
	done    int             // networks
	failed  int             // peers
	unsaid  []string        // warnings, which wait for the end of the row
}

// measured is a row: what was measured of one network, in one precision.
type measured struct {
	caption string // above the table; that of the first network
	line    any    // of JSON
	row     []string
	// peer, if not nil, measures the peer once the row is written, and returns its
	// cells, none if it failed.
	peer func() ([]string, error)
}

// newBencher opens the file of --output.
func newBencher(o benchOptions, stdout, stderr io.Writer) (*bencher, error) {
	list, err := o.list()
	if err != nil {
		return nil, err
	}
	b := &bencher{benchOptions: o, list: list, stdout: stdout, stderr: stderr}
	var widest [3]string
	for _, s := range list {
		p := s.Pair()
		cells := [3]string{strconv.Itoa(p.L), strconv.Itoa(p.M), strconv.Itoa(p.Params(9))}
		if len(o.systems) > 0 { // only the measurement knows their parameters
			cells[0], cells[2] = s.String(), "12345678"
		}
		for i, cell := range cells {
			if len(cell) > len(widest[i]) {
				widest[i] = cell
			}
		}
	}
	b.columns = []report.Column{{Header: "L", Widest: widest[0]}, {Header: "M", Widest: widest[1]}}
	if len(o.systems) > 0 {
		b.columns = []report.Column{{Header: "<network", Widest: widest[0]}}
	}
	b.columns = append(b.columns, report.Column{Header: "params", Widest: widest[2]})
	if o.output != "" {
		if b.file, err = os.OpenFile(o.output, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o666); err != nil {
			return nil, fmt.Errorf("--output: %w", err)
		}
	}
	return b, nil
}

// name is the first cells of a network's row and, for JSON, its parameters, of one
// block for a pair, and its name if it is of --systems.
func (b *bencher) name(s space.System, networkParams int) (cells []string, params int, system string) {
	p := s.Pair()
	if len(b.systems) > 0 {
		return []string{s.String(), strconv.Itoa(networkParams)}, networkParams, s.String()
	}
	params = p.Params(9)
	return []string{strconv.Itoa(p.L), strconv.Itoa(p.M), strconv.Itoa(params)}, params, ""
}

// each measures the networks one by one. After an error it writes what the network's
// measurement has nevertheless, and ends.
func (b *bencher) each(one func(space.System) ([]measured, error)) error {
	for _, s := range b.list {
		b.progress(s.Label())
		rows, err := one(s)
		b.progress("")
		for _, m := range rows {
			err = errors.Join(err, b.write(m))
		}
		b.warn()
		if len(rows) > 0 {
			b.done++
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// write writes the row also where the file of --output takes no more.
func (b *bencher) write(m measured) error {
	unwritten := b.record(m.line)
	table := b.format != "json"
	if table {
		if b.rows == nil {
			if _, err := fmt.Fprintf(b.stdout, "%s\n\n", m.caption); err != nil {
				return err
			}
			if b.format == "markdown" {
				b.rows = report.NewMarkdownRows(b.stdout, b.columns)
			} else {
				b.rows = report.NewRows(b.stdout, b.columns)
			}
		}
		b.rows.Cells(m.row...)
	}
	var cells []string
	err := unwritten
	if m.peer != nil && err == nil {
		cells, err = m.peer()
	}
	if table {
		b.rows.Cells(cells...)
		err = errors.Join(err, b.rows.End())
	}
	return err
}

func (b *bencher) warn() {
	report.Warn(b.stderr, "bench", b.unsaid)
	b.unsaid = nil
}

// record writes a line of JSON to the file of --output, and with --format json to the
// output.
func (b *bencher) record(line any) error {
	err := b.append(line)
	if b.format == "json" {
		err = cmp.Or(err, json.NewEncoder(b.stdout).Encode(line))
	}
	return err
}

// append writes a line of JSON to the file of --output, if there is one.
func (b *bencher) append(line any) error {
	if b.file == nil {
		return nil
	}
	if err := json.NewEncoder(b.file).Encode(line); err != nil {
		return fmt.Errorf("--output: %w", err)
	}
	return nil
}

// end writes last rows by the headers of their columns, if there are several networks.
// It returns err, or else what is wrong with the peers.
func (b *bencher) end(err error, last []map[string]string) error {
	if b.file != nil {
		defer b.file.Close()
	}
	if b.rows != nil && b.done > 1 {
		for _, row := range last {
			for _, c := range b.columns {
				b.rows.Cells(row[strings.TrimPrefix(c.Header, "<")])
			}
			err = errors.Join(err, b.rows.End())
		}
	}
	if b.load > quietLoad {
		b.unsaid = append(b.unsaid, fmt.Sprintf("other programs ran in the minute before (load %.1f): these are times"+
			" beside other work; measure on a quiet machine", b.load))
	}
	b.warn()
	if err == nil && b.failed > 0 {
		err = fmt.Errorf("the peer failed for %d of %s: the warnings above say why", b.failed,
			report.Count(len(b.list), "pair"))
	}
	return err
}

// progress shows which network is measured, if someone watches; no name clears the
// line.
func (b *bencher) progress(name string) {
	switch {
	case b.format == "json" || !progress.IsTerminal(b.stderr):
	case name == "":
		fmt.Fprint(report.Unwrap(b.stderr), "\r\033[K")
	default:
		fmt.Fprintf(report.Unwrap(b.stderr), "\r%s …\033[K", search.PrintableLine(name))
	}
}

// peerJSON is one line of a peer, or why there is none, as json prints it.
type peerJSON struct {
	L          int             `json:"L"`
	M          int             `json:"M"`
	Batch      int             `json:"batch"`
	StepS      float64         `json:"peer_step_s,omitempty"`
	ImagesPerS float64         `json:"peer_images_per_s,omitempty"`
	Line       json.RawMessage `json:"peer,omitempty"` // all that the peer said
	Error      string          `json:"peer_error,omitempty"`
}

// peerStep is a step of a peer.
type peerStep struct {
	seconds float64 // 0 if it printed none
	way     string  // what its line says of the precision and the layout
}

// runPeer returns the fastest step that the peer prints. A peer that fails is warned of
// and counted. The error is another one.
func (b *bencher) runPeer(ctx context.Context, p space.Pair) (fastest peerStep, err error) {
	argv := append(strings.Fields(b.peer), "--pairs", spell(p), "--batch", b.batch.String(), "--threads",
		b.threads.String())
	limited, cancel := context.WithTimeout(ctx, b.peerLimit)
	defer cancel()
	cmd := exec.CommandContext(limited, argv[0], argv[1:]...)
	// A peer may be a script that starts others: an interrupt ends them all, and
	// none that lives on is waited for.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	var diagnosis bytes.Buffer
	cmd.Stderr = &diagnosis
	var written error
	out := &lineWriter{each: func(line []byte) {
		var r struct {
			StepS     float64 `json:"step_s"`
			Precision string  `json:"precision"`
			Layout    string  `json:"layout"`
		}
		if json.Unmarshal(line, &r) != nil {
			return
		}
		j := peerJSON{L: p.L, M: p.M, Batch: int(b.batch), Line: bytes.Clone(line)}
		if r.StepS > 1e-9 && r.StepS < 1e9 {
			j.StepS, j.ImagesPerS = r.StepS, float64(b.batch)/r.StepS
			if fastest.seconds == 0 || r.StepS < fastest.seconds {
				way := strings.TrimSpace(r.Precision + " " + strings.TrimPrefix(r.Layout, "torch."))
				fastest = peerStep{r.StepS, way}
			}
		}
		written = errors.Join(written, b.record(j))
	}}
	cmd.Stdout = out
	failed := cmd.Run()
	out.each(out.rest) // which may have no newline
	if ctx.Err() != nil {
		return fastest, ctx.Err()
	}
	switch {
	case limited.Err() != nil:
		failed = fmt.Errorf("stopped after %v, the --peer-limit", b.peerLimit)
	case failed != nil:
		lines := strings.Split(strings.TrimSpace(diagnosis.String()), "\n")
		if last := lines[len(lines)-1]; last != "" {
			failed = fmt.Errorf("%w: %s", failed, last)
		}
	case fastest.seconds == 0:
		failed = errors.New(`it printed no JSON line with the seconds of a step as "step_s"`)
	}
	if failed != nil {
		b.failed++
		text := fmt.Sprintf("peer %q: %v", strings.Join(argv, " "), failed)
		if fastest.seconds > 0 {
			text += "; what it had printed counts"
		}
		b.unsaid = append(b.unsaid, text)
		written = errors.Join(written, b.record(peerJSON{L: p.L, M: p.M, Batch: int(b.batch), Error: failed.Error()}))
	}
	return fastest, written
}

// lineWriter calls each with every line that is written to it; rest is what has no
// newline yet.
type lineWriter struct {
	each func(line []byte)
	rest []byte
}

// longestLine bounds the memory that a peer without newlines takes.
const longestLine = 1 << 20

func (w *lineWriter) Write(p []byte) (int, error) {
	w.rest = append(w.rest, p...)
	for {
		line, rest, found := bytes.Cut(w.rest, []byte{'\n'})
		if !found {
			break
		}
		w.each(line)
		w.rest = rest
	}
	if len(w.rest) > longestLine {
		w.rest = nil
	}
	return len(p), nil
}
