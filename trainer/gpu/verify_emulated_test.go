//go:build gpu

package gpu

import (
	"os"
	"testing"
)

// TestVerifyRunsRealProgramsOnTheEmulatedGPU: this test program is carried, and its tests of
// real sizes are found and run small.
func TestVerifyRunsRealProgramsOnTheEmulatedGPU(t *testing.T) {
	if os.Getenv("IGC_REQUIRE_GPU") == "1" {
		t.Skip("verify.sh runs this test: it does not start itself")
	}
	l := newLease(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	l.carry(t, "build/gpu/gpu.test", program)
	if code, printed := l.verify(t, "PARTS=sizes", "EMULATED=1"); code != 0 {
		t.Errorf("exit code %d\n%s", code, printed)
	} else {
		wantLines(t, printed, `sizes\tTestLossesAtRealSizesAreTheProcessors\t\d+\t0\t`,
			`sizes\tTestBitsAtRealSizesAreTheSameBesideOthers\t\d+\t0\t`,
			`    --- PASS: TestBitsAtRealSizesAreTheSameBesideOthers/small .*`)
	}
}
