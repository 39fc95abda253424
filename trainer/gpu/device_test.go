//go:build gpu

package gpu

import (
	"errors"
	"os"
	"slices"
	"testing"

	"gorgonia.org/cu"

	"igcsearch/trainer"
	"igcsearch/trainer/dataset"
)

// emulated skips a test that needs another GPU than a real one.
func emulated(t *testing.T) {
	t.Helper()
	if os.Getenv("IGC_REQUIRE_GPU") == "1" {
		t.Skip("only the emulated GPU can be another one")
	}
}

func TestAnOldDriverIsNamed(t *testing.T) {
	emulated(t)
	t.Setenv("IGC_EMULATED_DRIVER", "11.4")
	_, err := Devices()
	const want = "no GPU: the driver is one for CUDA 11.4, igcsearch needs one for 11.8 or later: " +
		"install NVIDIA's driver 520 or a later one"
	if err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
	if _, err := Open(0); err == nil || err.Error() != want {
		t.Errorf("opened: %v", err)
	}
}

// TestMachineCodeIsLoaded: the emulated driver refuses code of another device, and a
// kernel that is not in the code.
func TestMachineCodeIsLoaded(t *testing.T) {
	emulated(t)
	set := pictureSet(96, 5, 8)
	var want []float64
	for _, c := range []struct{ capability, arithmetic string }{
		{"7.5", "cuda sm_75 (driver 11.8)"},
		{"8.0", "cuda sm_80 (ptxas 11.8)"},
		{"8.6", "cuda sm_80 (ptxas 11.8)"},
		{"9.0", "cuda sm_90 (ptxas 11.8)"},
		{"10.0", "cuda sm_100 (driver 11.8)"},
	} {
		t.Setenv("IGC_EMULATED_CAPABILITY", c.capability)
		d, err := Open(0)
		if err != nil {
			t.Fatal(err)
		}
		m := newTrainedOn(t, d, set, 32)
		if a := m.Arithmetic(); a != c.arithmetic {
			t.Errorf("capability %s has %q, want %q", c.capability, a, c.arithmetic)
		}
		var losses []float64
		if err := m.Train(t.Context(), 1, dataset.Order(96, 3, 1), rates(0, 3), func(_ int, s trainer.Score) error {
			losses = append(losses, s.Loss)
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		if m.evaluate(t, dataset.Order(96, 3, 0)[:64]); want == nil {
			want = losses
		}
		if !slices.Equal(losses, want) {
			t.Errorf("capability %s: losses %v, want %v", c.capability, losses, want)
		}
		m.Close()
	}
	t.Setenv("IGC_EMULATED_CAPABILITY", "8.6")
	newer, err := Info{Capability: "sm_90"}.code("norm")
	if err != nil {
		t.Fatal(err)
	}
	if err := open(t).do(func() error { _, err := cu.LoadData(newer); return err }); !errors.Is(err, cu.NoBinaryForGpu) {
		t.Errorf("code of sm_90 on 8.6: error %v", err)
	}
}
