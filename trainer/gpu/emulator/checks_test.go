//go:build gpu

package emulator_test

import (
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"unsafe"

	"gorgonia.org/cu"

	"igcsearch/trainer/gpu/emulator"
	"igcsearch/trainer/gpu/emulator/internal/call"
)

// What is said of the kernels of testdata/checks.cu that are wrong. Which of two threads
// is the later one depends on the order.
const (
	sharedRace = `a race: it (reads|writes) byte \d+ of shared memory, which thread \(\d+,0,0\) (read|wrote) since the last barrier`
	threadRace = `a race: it (reads|writes|adds to) byte \d+ of memory of \d+ bytes, which thread \(\d+,0,0\) (read|wrote|added to) since the last barrier`
	blockRace  = `a race: it (reads|writes|adds to) byte \d+ of memory of \d+ bytes, which another block (read|wrote|added to) in this launch`
)

var checks = map[string]string{
	"wrong_shared_read":                          sharedRace,
	"wrong_shared_write":                         sharedRace,
	"wrong_shared_both_write":                    sharedRace,
	"wrong_syncwarp_of_others":                   sharedRace,
	"wrong_shuffle_is_no_barrier":                sharedRace,
	"wrong_global_in_a_block":                    threadRace,
	"wrong_blocks_both_write":                    blockRace,
	"wrong_block_reads":                          blockRace,
	"wrong_counter_is_read":                      threadRace,
	"wrong_last_block_without_fence":             blockRace,
	"wrong_last_block_without_barrier":           blockRace,
	"wrong_last_block_one_fence_without_barrier": blockRace,
	"wrong_last_block_without_counter":           blockRace,
	"wrong_last_block_reads_old_lines":           blockRace,
	"wrong_ldg_of_what_is_written":               `reads by __ldg what this launch wrote`,
	"wrong_read_behind":                          `reads 4 bytes at byte 1024 of memory of 1024 bytes`,
	"wrong_read_before":                          `reads 4 bytes at byte -4 of memory of 1024 bytes`,
	"wrong_write_nowhere":                        `writes 4 bytes at 0x[0-9a-f]+, where no memory is`,
	"wrong_shared_read_behind":                   `reads byte 260 of its 256 bytes of shared memory`,
	"wrong_vector":                               `uses an address that is not aligned for its type`,
	"wrong_int":                                  `an integer overflows`,
	"wrong_shift":                                `shifts by too many bits or a negative number`,
	"wrong_element":                              `uses an element that the array does not have`,
}

// TestChecks: the checked library reports what is wrong, with the kernel and the line,
// and nothing that is right, in each order of blocks and threads.
func TestChecks(t *testing.T) {
	library, err := emulator.Build("testdata", true)
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile("testdata/checks.cu")
	if err != nil {
		t.Fatal(err)
	}
	kernels := regexp.MustCompile(`KERNEL\((\w+),`).FindAllSubmatch(source, -1)
	if len(kernels) < len(checks) {
		t.Errorf("checks.cu has %d kernels, the test %d that are wrong", len(kernels), len(checks))
	}
	for _, m := range kernels {
		kernel := string(m[1])
		t.Run(kernel, func(t *testing.T) {
			t.Parallel()
			cmd := exec.Command(self)
			cmd.Env = append(os.Environ(), "IGC_CUDA_LIBRARY="+library, "IGC_LAUNCH="+kernel)
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			want, line := "^"+strings.Repeat("<nil>\n", 3)+"$", checks[kernel]
			if strings.HasPrefix(kernel, "wrong_") {
				want = fmt.Sprintf(`^(emulated GPU: kernel %s, block \([01],0,0\), thread \(\d+,0,0\): %s,? at \S*/checks.cu:\d+
CUDA_ERROR_LAUNCH_FAILED
){3}$`, kernel, line)
			}
			if !regexp.MustCompile(want).Match(out) {
				t.Errorf("it says\n%swant %s", out, want)
			}
		})
	}
}

// launchInOrders launches a kernel of checks.cu in each order and prints the errors.
func launchInOrders(kernel string) {
	runtime.LockOSThread()
	for _, order := range []string{"", "reverse", "random"} {
		os.Setenv("IGC_EMULATED_ORDER", order)
		fmt.Println(launchCheck(kernel))
	}
}

func launchCheck(kernel string) error {
	ctx, err := cu.Device(0).MakeContext(cu.SchedAuto)
	if err != nil {
		return err
	}
	defer func() { _ = ctx.Destroy() }()
	module, err := cu.LoadData(".version 7.8\n.entry " + kernel + "() {}")
	if err != nil {
		return err
	}
	f, err := module.Function(kernel)
	if err != nil {
		return err
	}
	var args struct{ p, counter cu.DevicePtr }
	for p, words := range map[*cu.DevicePtr]int64{&args.p: 256, &args.counter: 1} {
		if *p, err = cu.MemAlloc(4 * words); err != nil {
			return err
		}
		if err = cu.MemsetD32(*p, 0, words); err != nil {
			return err
		}
	}
	if err := cu.Synchronize(); err != nil { // the stream does not wait for the memory to be set
		return err
	}
	stream, err := cu.MakeStream(cu.NonBlocking)
	if err != nil {
		return err
	}
	if err := call.Launch(f, [3]int{2, 1, 1}, [3]int{64, 1, 1}, 64*4, stream, unsafe.Pointer(&args)); err != nil {
		return err
	}
	return call.Wait(stream)
}
