package main

import (
	"bytes"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"igcsearch/search"
	"igcsearch/space"
	"igcsearch/store"
	"igcsearch/trainer/gpu"
)

// twoGPUs are of different kinds.
func twoGPUs() []gpu.Info {
	return []gpu.Info{
		{Index: 0, Name: "NVIDIA H200", Capability: "sm_90", Driver: "CUDA 12.8",
			Memory: 150 << 30, Free: 149 << 30, Multiprocessors: 132},
		{Index: 1, Name: "NVIDIA A10", Capability: "sm_86", Driver: "CUDA 12.8",
			Memory: 24 << 30, Free: 12 << 29, Multiprocessors: 72},
	}
}

func TestDevice(t *testing.T) {
	none := errors.New("no driver")
	for _, c := range []struct {
		flag  string
		there []gpu.Info
		why   error
		want  string // indices, or the error
	}{
		{"auto", twoGPUs(), nil, "01"},
		{"auto", nil, none, ""},
		{"cpu", twoGPUs(), nil, ""},
		{"cuda", twoGPUs(), nil, "01"},
		{"cuda", nil, none, "--device cuda: no driver"},
		{"cuda:1", twoGPUs(), nil, "1"},
		{"cuda:1,cuda:0", twoGPUs(), nil, "10"},
		{"cuda:2", twoGPUs(), nil, "--device cuda:2: there is no cuda:2: this machine has 2 GPUs, counted from 0"},
		{"cuda:0", nil, none, "--device cuda:0: no driver"},
	} {
		var d device
		if err := d.Set(c.flag); err != nil {
			t.Fatal(err)
		}
		list, err := d.choose(c.there, c.why)
		got := ""
		for _, g := range list {
			got += string(rune('0' + g.Index))
		}
		if err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%s of %d GPUs: %q, want %q", c.flag, len(c.there), got, c.want)
		}
	}
}

func TestAttemptsRecordTheDevices(t *testing.T) {
	same := append(twoGPUs()[:1:1], twoGPUs()[0])
	for _, c := range []struct {
		gpus         []gpu.Info
		devices, isa string
	}{
		{same, "NVIDIA H200", "cuda sm_90 (ptxas 11.8)"},
		{twoGPUs(), "NVIDIA H200, NVIDIA A10", "cuda sm_90 (ptxas 11.8), cuda sm_80 (ptxas 11.8)"},
	} {
		if devices, isa, err := arithmetic(c.gpus); devices != c.devices || isa != c.isa || err != nil {
			t.Errorf("got %q, %q, %v, want %q, %q", devices, isa, err, c.devices, c.isa)
		}
	}
	if devices, isa, err := arithmetic(nil); devices != "cpu" || strings.Contains(isa, "cuda") || err != nil {
		t.Errorf("of the processor: %q, %q, %v", devices, isa, err)
	}
}

func TestMixedArithmeticIsWarnedOf(t *testing.T) {
	for want, isas := range map[string][2]string{
		"": {"cuda sm_90 (ptxas 11.8)", "cuda sm_90 (ptxas 11.8)"},
		"different instruction sets or GPUs (avx512, cuda sm_90 (ptxas 11.8))": {"avx512", "cuda sm_90 (ptxas 11.8)"},
		"different instruction sets or GPUs (avx512, avx2)":                    {"avx512", "avx2"},
		// In a run on two kinds of GPU nobody knows which of them trained a trial.
		"different instruction sets or GPUs (cuda sm_90 (ptxas 11.8), cuda sm_80 (ptxas 11.8))": {
			"cuda sm_90 (ptxas 11.8), cuda sm_80 (ptxas 11.8)", "cuda sm_90 (ptxas 11.8), cuda sm_80 (ptxas 11.8)",
		},
	} {
		ctx := t.Context()
		db, err := store.Open(ctx, filepath.Join(t.TempDir(), "x.db"))
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		s := search.Default()
		s.Name, s.Dataset, s.Pairs, s.Seeds, s.Epochs = "mixed", "synthetic", []string{"2x2"}, search.FirstSeeds(2), 1
		if s, err = s.Normalize(); err != nil {
			t.Fatal(err)
		}
		trials, err := db.Plan(ctx, s, s.Trials(space.Shape{C: 3, H: 32, W: 32}, 10))
		if err != nil {
			t.Fatal(err)
		}
		for i, trial := range trials {
			turn, err := db.Begin(ctx, trial.ID, trial.Epochs, search.Attempt{ISA: isas[i]})
			if err == nil {
				err = turn.Record(ctx, search.Epoch{Number: 1, TestTotal: 1}, search.Checkpoint{Epoch: 1})
			}
			if err == nil {
				_, err = turn.End(ctx, search.Outcome{Status: search.Done})
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		r, err := readResults(ctx, db, s.Name)
		if err != nil {
			t.Fatal(err)
		}
		var stderr bytes.Buffer
		r.Warn(&stderr)
		if got := stderr.String(); !strings.Contains(got, want) || (got == "") != (want == "") {
			t.Errorf("%q: warned %q, want %q", isas, got, want)
		}
	}
}

func TestDevicesListsGPUs(t *testing.T) {
	var table, json bytes.Buffer
	for _, out := range []*bytes.Buffer{&table, &json} {
		format := map[*bytes.Buffer]string{&table: "table", &json: "json"}[out]
		if err := runDevices(t.Context(), devicesOptions{format}, twoGPUs(), nil, out); err != nil {
			t.Fatal(err)
		}
	}
	lines := strings.Split(table.String(), "\n")
	want := []string{"cuda:1", "NVIDIA", "A10", "sm_80", "(ptxas", "11.8)", "72", "24.0", "6.0", "CUDA", "12.8"}
	if got := strings.Fields(lines[4]); !slices.Equal(got, want) || strings.Contains(table.String(), "no GPU") {
		t.Errorf("got\n%s", table.String())
	}
	if !strings.Contains(json.String(), `"device": "cuda:1",
      "name": "NVIDIA A10",
      "capability": "sm_86",
      "arithmetic": "cuda sm_80 (ptxas 11.8)",
      "multiprocessors": 72,
      "memory_bytes": 25769803776,
      "free_bytes": 6442450944,
      "driver": "CUDA 12.8"`) || strings.Contains(json.String(), "no_gpu") {
		t.Errorf("got\n%s", json.String())
	}
}
