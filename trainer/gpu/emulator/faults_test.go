//go:build gpu

package emulator_test

import (
	"os"
	"os/exec"
	"testing"
	"unsafe"

	"gorgonia.org/cu"

	"igcsearch/trainer/gpu/emulator"
)

func TestAFaultSticksToTheContext(t *testing.T) {
	const illegalAddress, eccUncorrectable = 700, 214
	add := func(f *fixture) error { // hears of the fault at the launch or when it waits for it
		p := f.memory(1024)
		if err := f.launch("add", 1, 256, 0, unsafe.Pointer(&vector{p, 256, 1})); err != nil {
			return err
		}
		return f.stream.Synchronize()
	}
	for _, c := range []struct {
		fault string
		code  int
	}{{"1:1 0:3", illegalAddress}, {"0:3+:ECC_UNCORRECTABLE", eccUncorrectable}} {
		t.Run(c.fault, func(t *testing.T) {
			f := open(t)
			emulator.Inject(t, "IGC_EMULATED_FAULT", c.fault)
			f.ok(add(f))
			f.ok(add(f))
			f.code(c.code, add(f))
			_, err := cu.MemAlloc(1024)
			f.code(c.code, err)
			next := 0
			if c.code == eccUncorrectable { // and of all later kernels
				next = c.code
			}
			other := open(t)
			other.code(next, add(other))
		})
	}
	f := open(t) // without the variable nothing fails
	for range 4 {
		f.ok(add(f))
	}
}

func TestMemoryEndsAtTheCall(t *testing.T) {
	const outOfMemory = 2
	f := open(t)
	emulator.Inject(t, "IGC_EMULATED_NO_MEMORY", "2")
	f.memory(16)
	_, err := cu.MakeStream(cu.NonBlocking)
	f.code(outOfMemory, err)
	f.memory(16)
	emulator.Inject(t, "IGC_EMULATED_NO_MEMORY", "2+")
	f.memory(16)
	for range 2 {
		_, err = cu.MakeEvent(cu.DisableTiming)
		f.code(outOfMemory, err)
	}
}

func TestVersionOfTheDriver(t *testing.T) {
	if v := cu.Version(); v != 11080 {
		t.Errorf("version %d, want that of the header", v)
	}
	t.Setenv("IGC_EMULATED_DRIVER", "11.4")
	if v := cu.Version(); v != 11040 {
		t.Errorf("version %d", v)
	}
}

// A misspelt fault must not look like a test that passes without one.
func TestAMisspeltFaultEndsTheProcess(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, fault := range []string{"IGC_EMULATED_FAULT=1", "IGC_EMULATED_FAULT=0:1:NO_SUCH", "IGC_EMULATED_FAULT=0:1-",
		"IGC_EMULATED_NO_MEMORY=soon", "IGC_EMULATED_DRIVER=new"} {
		cmd := exec.Command(self, "-test.run", "^TestThreadsOfTheHost$|^TestVersionOfTheDriver$")
		cmd.Env = append(os.Environ(), fault)
		if out, err := cmd.CombinedOutput(); err == nil {
			t.Errorf("%s was taken for a fault: %s", fault, out)
		}
	}
}
