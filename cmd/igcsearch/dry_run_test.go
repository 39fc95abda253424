package main

import (
	"testing"

	"igcsearch/trainer"
	"igcsearch/trainer/kernel"
)

func TestAFasterPrecisionIsNamed(t *testing.T) {
	machine := func(bf16, amx bool) []trainer.Multiplier {
		return []trainer.Multiplier{{Precision: "f32", Native: true}, {Precision: "bf16", Native: bf16},
			{Precision: "bf16-amx", Native: amx}}
	}
	const emulated = " is emulated with avx512, which is slow and for checking results; here "
	for _, c := range []struct {
		precision string
		here      []trainer.Multiplier
		want      string
	}{
		{"", machine(true, true), ""},
		{"tf32", machine(false, false), ""},
		{"bf16", machine(true, false), ""},
		{"bf16-amx", machine(true, true), ""},
		{"bf16", machine(true, true),
			`this machine mostly trains faster in precision "bf16-amx" than in "bf16", and the results are others`},
		{"bf16", machine(false, false), `precision "bf16"` + emulated + `"f32" is fast, and makes other results`},
		{"bf16-amx", machine(false, false), `precision "bf16-amx"` + emulated + `"f32" is fast, and makes other results`},
		{"bf16-amx", machine(true, false), `precision "bf16-amx"` + emulated + `"bf16" is fast, and makes other results`},
	} {
		if got := fasterPrecision(c.precision, kernel.AVX512, c.here); got != c.want {
			t.Errorf("%q on %+v: got %q, want %q", c.precision, c.here, got, c.want)
		}
	}
}
