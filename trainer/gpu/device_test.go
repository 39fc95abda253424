//go:build gpu

package gpu

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"gorgonia.org/cu"

	"igcsearch/search"
	"igcsearch/space"
	"igcsearch/trainer"
	"igcsearch/trainer/dataset"
	"igcsearch/trainer/gpu/emulator"
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

// second returns the second GPU, so that its faults are not those of other tests.
func second(t *testing.T) *Device {
	t.Helper()
	d, err := Open(1)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// free is how many bytes are free on the device.
func free(t *testing.T, d *Device) (n int64) {
	t.Helper()
	if err := d.do(func() (err error) { n, _, err = cu.MemInfo(); return err }); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestAFaultIsOfAllModelsUntilTheDeviceIsOpenedAnew(t *testing.T) {
	emulated(t)
	set := pictureSet(96, 5, 8)
	train := func(m *Model) (losses []float64, err error) {
		err = m.Train(t.Context(), 1, dataset.Order(96, 3, 1), rates(0, 3), func(_ int, s trainer.Score) error {
			losses = append(losses, s.Loss)
			return nil
		})
		return losses, err
	}
	d := second(t)
	before := free(t, d)
	one, other := newTrainedOn(t, d, set, 32), newTrainedOn(t, d, set, 32)
	want, err := train(one)
	if err != nil {
		t.Fatal(err)
	}
	emulator.Inject(t, "IGC_EMULATED_FAULT", "1:20:HARDWARE_STACK_ERROR")
	const fault = "cuda:1 (Emulated GPU) failed: CUDA_ERROR_HARDWARE_STACK_ERROR"
	_, err = train(one)
	errs := []error{err, other.Pull()}
	_, err = other.Evaluate(t.Context(), &set.Test)
	errs = append(errs, err)
	_, err = d.New(one.host.Net, 32, set, trainer.Recipe{})
	for _, err := range append(errs, err) {
		if !errors.Is(err, search.ErrDevice) || !strings.HasSuffix(err.Error(), fault) {
			t.Errorf("error %v, want %s", err, fault)
		}
	}
	one.Close()
	other.Close()
	d.Close()

	d = second(t)
	defer d.Close()
	if after := free(t, d); after != before {
		t.Errorf("%d bytes are free, %d before the fault", after, before)
	}
	m := newTrainedOn(t, d, set, 32)
	defer m.Close()
	if got, err := train(m); err != nil || !slices.Equal(got, want) {
		t.Errorf("opened anew: losses %v, %v, want %v", got, err, want)
	}
}

func TestWhatIsNoFault(t *testing.T) {
	d := open(t)
	broken := errors.New("the picture is no picture")
	for _, err := range []error{broken, cu.InvalidValue, fmt.Errorf("batch: %w", errors.Join(broken, cu.NoBinaryForGpu)),
		context.Canceled, fmt.Errorf("%w: for all", ErrMemory)} {
		if got := d.do(func() error { return err }); !errors.Is(got, err) || errors.Is(got, search.ErrDevice) {
			t.Errorf("%v becomes %v", err, got)
		}
	}
	if err := d.do(func() error { return cu.MemFree(12345) }); err == nil || errors.Is(err, search.ErrDevice) {
		t.Errorf("memory that is none is freed with %v", err)
	}
	for _, err := range []error{cu.IllegalAddress, errors.Join(context.Canceled, fmt.Errorf("copy: %w", cu.LaunchFailed)),
		errors.Join(ErrMemory, cu.Unknown)} {
		if faultIn(err) == "" {
			t.Errorf("%v is no fault", err)
		}
	}
}

// Memory may end in any call that begins a training. Then all is free that was free before.
func TestMemoryEndsInAnyCall(t *testing.T) {
	emulated(t)
	d := second(t)
	defer d.Close()
	set := pictureSet(64, 5, 8)
	newTrainedOn(t, d, set, 32).Close() // the modules stay
	before := free(t, d)
	net := space.Figure3(space.Pair{L: 2, M: 1}, 1, space.Shape{C: 3, H: 8, W: 8}, 3)
	for call := 1; ; call++ {
		emulator.Inject(t, "IGC_EMULATED_NO_MEMORY", fmt.Sprint(call))
		m, err := d.New(net, 32, set, trainer.Recipe{Momentum: .9})
		if err == nil {
			m.Close()
			if call < 6 {
				t.Errorf("it takes only %d calls", call-1)
			}
			return
		}
		if after := free(t, d); !errors.Is(err, search.ErrNoMemory) || after != before {
			t.Errorf("call %d: error %v, %d bytes are free, %d before", call, err, after, before)
		}
	}
}
