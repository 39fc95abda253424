package main

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"igcsearch/cmd/igcsearch/report"
	"igcsearch/search"
	"igcsearch/space"
	"igcsearch/trainer/bench"
	"igcsearch/trainer/gpu"
)

func TestARowIsWrittenBeforeItsPeerIsMeasured(t *testing.T) {
	var out strings.Builder
	b := bencher{benchOptions: benchOptions{format: "table"}, stdout: &out, stderr: io.Discard,
		list:    []space.System{space.PairSystem(space.Pair{L: 3, M: 2}), space.PairSystem(space.Pair{L: 2, M: 3})},
		columns: []report.Column{{Header: "ours"}, {Header: "theirs"}}}
	broken := errors.New("broken")
	rows := []string{"1.5", "2.5"}
	err := b.each(func(space.System) ([]measured, error) {
		row := rows[b.done]
		return []measured{{caption: "above", line: 1, row: []string{row}, peer: func() ([]string, error) {
			if !strings.HasSuffix(out.String(), row) {
				t.Errorf("the peer begins before %s is written: %q", row, out.String())
			}
			if b.done == 1 {
				return nil, broken
			}
			return []string{"7"}, nil
		}}}, nil
	})
	if !errors.Is(err, broken) {
		t.Errorf("error %v", err)
	}
	if want := "above\n\n ours   theirs\n───────────────\n  1.5        7\n  2.5\n"; out.String() != want {
		t.Errorf("got %q, want %q", out.String(), want)
	}
}

// A file that takes no more loses none of the output.
func TestARowIsWrittenIfTheFileIsFull(t *testing.T) {
	closed, err := os.Create(filepath.Join(t.TempDir(), "rows.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	for format, want := range map[string]string{"table": "above\n\n ours\n──────\n  1.5\n", "json": "1\n"} {
		var out strings.Builder
		b := bencher{benchOptions: benchOptions{format: format}, stdout: &out, stderr: io.Discard, file: closed,
			list: []space.System{space.PairSystem(space.Pair{L: 3, M: 2})}, columns: []report.Column{{Header: "ours"}}}
		err := b.each(func(space.System) ([]measured, error) {
			return []measured{{caption: "above", line: 1, row: []string{"1.5"}}}, nil
		})
		if !errors.Is(err, os.ErrClosed) || !strings.HasPrefix(err.Error(), "--output: ") || out.String() != want {
			t.Errorf("%s: got %q, want %q; error %v", format, out.String(), want, err)
		}
	}
}

func TestAGPUsRowHasWhatWasMeasuredBeforeAFailure(t *testing.T) {
	alone := bench.GPUResult{Batch: 64, Flops: 11.8e9, Bench: gpu.Bench{Step: 1400 * time.Microsecond, Launches: 61,
		Memory: 3e8, Bytes: 2e9, Starts: []time.Duration{100000}, Queue: 1, Launch: 100 * time.Microsecond}}
	together := alone
	together.Trials, together.AllPerSecond, together.Host = 3, 64000, 0.05
	all := together
	all.PeakFlops, all.Bandwidth = 60e12, 4e12
	broken := errors.New("broken")
	b := bencher{benchOptions: benchOptions{precisions: benchPrecisions{search.PrecisionF32}}}
	for _, c := range []struct {
		result bench.GPUResult
		failed error
		row    []string
		json   string
	}{
		{alone, broken, []string{"40", "2", "4640", "1.400", "45714", "61", "300", "100", "1"},
			`"launch_s":0.0001,"queue":1,"starts_s":[0.0001],"device":"G","driver":"D","error":"broken"}`},
		{together, broken, []string{"3", "64000", "11.8", "2000", "5.0"},
			`"driver":"D","trials":3,"all_images_per_s":64000,"all_gflops":11800,"all_gb_per_s":2000,` +
				`"host_cores_per_trial":0.05,"error":"broken"}`},
		{all, nil, []string{"memory", "50"},
			`"peak_gflops":60000,"bandwidth_gb_per_s":4000,"bound":"memory","share":0.5}`},
	} {
		m := b.gpuRow(space.PairSystem(space.Pair{L: 40, M: 2}), c.result, gpu.Info{Name: "G", Driver: "D"}, means{}, c.failed)
		text, err := json.Marshal(m.line)
		if err != nil {
			t.Fatal(err)
		}
		if got := m.row[len(m.row)-len(c.row):]; !slices.Equal(got, c.row) || !strings.HasSuffix(string(text), c.json) {
			t.Errorf("row %q, %s", m.row, text)
		}
	}
}

// Values worked by hand: the geometric mean of 2 and 8 is 4.
func TestTheLastRowsOfBench(t *testing.T) {
	b := bencher{benchOptions: benchOptions{precisions: benchPrecisions{"f32", "bf16", "bf16-amx"}},
		columns: []report.Column{{Header: "L"}, {Header: "M"}}}
	b.pairs.groups = []benchGroup{{"one", 0, 2}, {"two", 2, 4}}
	var all []benchValues
	for i, p := range []space.Pair{{L: 5, M: 1}, {L: 4, M: 2}, {L: 3, M: 2}, {L: 2, M: 3}} {
		b.list = append(b.list, space.PairSystem(p))
		speed := []float64{2, 8, 4.5, 0.5}[i]
		all = append(all, benchValues{i, "f32", map[string]float64{"GFLOP/s": speed}},
			benchValues{i, "bf16", map[string]float64{"GFLOP/s": 2 * speed, "speed to f32": 2}},
			benchValues{i, "bf16-amx", map[string]float64{"GFLOP/s": 3 * speed, "speed to f32": 3}})
	}
	want := []string{"mean, one f32 4.0 ", "mean, one bf16 8.0 2.00", "mean, one bf16-amx 12.0 3.00",
		"mean, two f32 1.5 ", "mean, two bf16 3.0 2.00", "mean, two bf16-amx 4.5 3.00",
		"mean, M = 2 f32 6.0 ", "mean, M = 2 bf16 12.0 2.00", "mean, M = 2 bf16-amx 18.0 3.00",
		"mean f32 2.4 ", "mean bf16 4.9 2.00", "mean bf16-amx 7.3 3.00",
		"lowest f32 0.5 ", "lowest bf16 1.0 2.00", "lowest bf16-amx 1.5 3.00",
		"highest f32 8.0 ", "highest bf16 16.0 2.00", "highest bf16-amx 24.0 3.00"}
	for format, label := range map[string]string{"table": "images/s", "markdown": "L"} {
		b.format = format
		var got []string
		for _, row := range b.summary(all) {
			got = append(got, strings.Join([]string{row[label], row["precision"], row["GFLOP/s"], row["speed to f32"]}, " "))
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: got %q, want %q", format, got, want)
		}
	}
	// One study is all, and so are pairs of M = 2 alone; networks have names in place of pairs.
	b.pairs.groups = []benchGroup{{"one", 0, 4}}
	if lines := b.lines(b.list[:3]); lines[0].label != "mean, M = 2" {
		t.Errorf("%q", lines[0].label)
	}
	if lines := b.lines(b.list[1:3]); lines[0].label != "mean" {
		t.Errorf("%q", lines[0].label)
	}
	b.systems, b.pairs.groups = []string{"IGC-L4M2-D5"}, []benchGroup{{"one", 0, 2}}
	if lines := b.lines(b.list); lines[0].label != "mean" {
		t.Errorf("%q", lines[0].label)
	}
}
