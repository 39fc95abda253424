//go:build gpu

package emulator_test

import (
	"cmp"
	"fmt"
	"math"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"unsafe"

	"gorgonia.org/cu"

	"igcsearch/trainer/gpu/driver"
	"igcsearch/trainer/gpu/emulator"
	"igcsearch/trainer/gpu/emulator/internal/call"
)

func TestMain(m *testing.M) {
	if os.Getenv("IGC_ASK") != "" { // TestWithoutADevice asks what the program sees
		n, err := cu.NumDevices()
		fmt.Printf("%d %v %s\n", n, err, driver.Why())
		os.Exit(0)
	}
	if os.Getenv("IGC_REQUIRE_GPU") == "1" {
		fmt.Println("skipped: these tests are of the emulated GPU")
		os.Exit(0)
	}
	emulator.Main(m, "testdata")
}

// The emulator looks for the names; an entry with its size of parameters is held to it.
const ptx = `.version 7.8
.target sm_70
.address_size 64
.visible .entry add(
	.param .align 8 .b8 add_param_0[16]
)
{ ret; }
.visible .entry sums() { ret; }
.visible .entry lanes() { ret; }
.visible .entry leavers() { ret; }
.visible .entry indices() { ret; }
.visible .entry other_barrier() { ret; }
.visible .entry no_lane() { ret; }
.visible .entry behind() { ret; }
.visible .entry shared_behind() { ret; }
.visible .entry race(
	.param .align 8 .b8 race_param_0[24]
) { ret; }
.visible .entry no_source() { ret; }
`

// A fixture is a context of its own, as a failed launch ruins it.
type fixture struct {
	testing.TB
	module cu.Module
	stream cu.Stream
}

func open(t testing.TB) *fixture {
	t.Helper()
	runtime.LockOSThread()
	ctx, err := cu.Device(0).MakeContext(cu.SchedAuto)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = ctx.Destroy()
		runtime.UnlockOSThread()
	})
	f := &fixture{TB: t}
	f.module, err = cu.LoadData(ptx)
	f.ok(err)
	f.stream, err = cu.MakeStream(cu.NonBlocking)
	f.ok(err)
	return f
}

func (f *fixture) ok(err error) {
	f.Helper()
	if err != nil {
		f.Fatal(err)
	}
}

// code wants an error with this number, 0 for none.
func (f *fixture) code(want int, err error) {
	f.Helper()
	got := "0"
	if err != nil {
		got = fmt.Sprintf("%d", err)
	}
	if got != fmt.Sprint(want) {
		f.Fatalf("error %s (%v), want %d", got, err, want)
	}
}

func (f *fixture) function(name string) cu.Function {
	f.Helper()
	fn, err := f.module.Function(name)
	f.ok(err)
	return fn
}

func (f *fixture) memory(bytes int64) cu.DevicePtr {
	f.Helper()
	p, err := cu.MemAlloc(bytes)
	f.ok(err)
	return p
}

func upload[T any](f *fixture, values []T) cu.DevicePtr {
	f.Helper()
	bytes := int64(len(values)) * int64(unsafe.Sizeof(values[0]))
	p := f.memory(bytes)
	f.ok(cu.MemcpyHtoD(p, unsafe.Pointer(&values[0]), bytes))
	f.ok(cu.Synchronize()) // no stream waits for the copy
	return p
}

func download[T any](f *fixture, p cu.DevicePtr, n int) []T {
	f.Helper()
	f.ok(f.stream.Synchronize()) // the copy does not wait for the stream
	values := make([]T, n)
	f.ok(cu.MemcpyDtoH(unsafe.Pointer(&values[0]), p, int64(n)*int64(unsafe.Sizeof(values[0]))))
	return values
}

type vector struct {
	p   cu.DevicePtr
	n   int32
	add float32
}

type two struct {
	to, from cu.DevicePtr
	n        int32
}

// start puts a kernel into the stream. launch also waits for it, and so returns what
// went wrong in it.
func (f *fixture) start(name string, grid, block, sharedBytes int, args unsafe.Pointer) error {
	f.Helper()
	return call.Launch(f.function(name), [3]int{grid, 1, 1}, [3]int{block, 1, 1}, sharedBytes, f.stream, args)
}

func (f *fixture) launch(name string, grid, block, sharedBytes int, args unsafe.Pointer) error {
	f.Helper()
	return cmp.Or(f.start(name, grid, block, sharedBytes, args), f.stream.Synchronize())
}

// inOrders runs a test in each order of blocks and threads.
func inOrders(t *testing.T, test func(f *fixture)) {
	for _, order := range []string{"", "reverse", "random"} {
		t.Run("order "+order, func(t *testing.T) {
			t.Setenv("IGC_EMULATED_ORDER", order)
			test(open(t))
		})
	}
}

func TestLaunch(t *testing.T) {
	inOrders(t, func(f *fixture) {
		values := make([]float32, 1000)
		sum := [8]float32{}
		for i := range values {
			values[i] = float32(i%17) - 3
			sum[i/128] += values[i] + 0.5
		}
		p := upload(f, values)
		f.ok(f.launch("add", 4, 256, 0, unsafe.Pointer(&vector{p, 1000, 0.5})))
		out := f.memory(8 * 4)
		f.ok(f.launch("sums", 8, 128, 4*4, unsafe.Pointer(&two{out, p, 1000})))
		f.ok(f.stream.Synchronize())
		if got := download[float32](f, out, 8); [8]float32(got) != sum {
			f.Errorf("sums are %v, want %v", got, sum)
		}
		f.ok(cu.Synchronize())
	})
}

func TestLanes(t *testing.T) {
	inOrders(t, func(f *fixture) {
		p := f.memory(64 * 8 * 4)
		f.ok(f.launch("lanes", 1, 64, 0, unsafe.Pointer(&p)))
		got := download[uint32](f, p, 64*8)
		for i := range uint32(64) {
			lane := i % 32
			want := [8]uint32{5, lane ^ 3, lane + 4, lane - 4, lane + 1, 0x49249249, 1e9 + lane ^ 31, lane ^ 1}
			want[6] = 1e9 + (lane ^ 31)
			if lane >= 28 {
				want[2] = lane
			}
			if lane < 4 {
				want[3] = lane
			}
			if lane%8 == 7 {
				want[4] = lane
			}
			if row := [8]uint32(got[8*i : 8*i+8]); row != want {
				f.Errorf("thread %d: %v, want %v", i, row, want)
			}
		}
	})
}

func TestThreadsThatLeave(t *testing.T) {
	inOrders(t, func(f *fixture) {
		p := f.memory(40 * 4)
		f.ok(f.launch("leavers", 1, 100, 40*4, unsafe.Pointer(&p)))
		for i, x := range download[uint32](f, p, 40) {
			if want := max(39-uint32(i), 39-uint32(i^1)); x != want {
				f.Errorf("thread %d has %d, want %d", i, x, want)
			}
		}
	})
}

func TestIndices(t *testing.T) {
	inOrders(t, func(f *fixture) {
		p := f.memory((24*30 + 1) * 4)
		f.ok(cu.MemsetD32(p, 0, 24*30+1))
		f.ok(cu.Synchronize())
		f.ok(call.Launch(f.function("indices"), [3]int{2, 3, 4}, [3]int{5, 3, 2}, 0, f.stream, unsafe.Pointer(&p)))
		got := download[uint32](f, p, 24*30+1)
		for i, x := range got[:24*30] {
			if want := uint32(i/30*10000 + i%30); x != want {
				f.Fatalf("place %d has %d, want %d", i, x, want)
			}
		}
		if got[24*30] != 24*30 {
			f.Errorf("%d threads counted, want %d", got[24*30], 24*30)
		}
	})
}

func TestKernelsThatAreWrong(t *testing.T) {
	const launchFailed, illegalAddress = 719, 700
	for _, name := range []string{"other_barrier", "no_lane", "shared_behind"} {
		t.Run(name, func(t *testing.T) {
			inOrders(t, func(f *fixture) {
				p := f.memory(1024)
				block := map[string]int{"shared_behind": 32}[name]
				if block == 0 {
					block = 64
				}
				f.code(launchFailed, f.launch(name, 1, block, 128, unsafe.Pointer(&p)))
				f.code(launchFailed, cu.Synchronize()) // it sticks
			})
			f := open(t) // and is gone with the context; the stacks are whole
			values := make([]float32, 256)
			p, out := upload(f, values), f.memory(4)
			f.ok(f.launch("sums", 1, 256, 32, unsafe.Pointer(&two{out, p, 256})))
		})
	}
	t.Run("behind, seen when waiting", func(t *testing.T) {
		f := open(t)
		p := f.memory(40)
		f.ok(f.start("behind", 1, 1, 0, unsafe.Pointer(&vector{p, 10, 0})))
		f.code(illegalAddress, f.stream.Synchronize())
		f.code(illegalAddress, cu.Synchronize())
	})
	t.Run("before, seen when freeing", func(t *testing.T) {
		f := open(t)
		p := f.memory(40)
		f.ok(f.start("behind", 1, 1, 0, unsafe.Pointer(&vector{p, -1, 0})))
		f.code(illegalAddress, cu.MemFree(p))
	})
	t.Run("a race shows in another order", func(t *testing.T) {
		results := map[string]bool{}
		for _, order := range []string{"", "reverse"} {
			t.Setenv("IGC_EMULATED_ORDER", order)
			f := open(t)
			p := f.memory(64 * 4)
			m, err := cu.LoadData(".version 7.8\n.entry race() {}")
			f.ok(err)
			fn, err := m.Function("race")
			f.ok(err)
			f.ok(call.Launch(fn, [3]int{1, 1, 1}, [3]int{64, 1, 1}, 64*4, f.stream, unsafe.Pointer(&p)))
			results[fmt.Sprint(download[uint32](f, p, 64))] = true
		}
		if len(results) != 2 {
			t.Error("both orders give the same")
		}
	})
}

func TestModules(t *testing.T) {
	f := open(t)
	for name, want := range map[string]int{"no_ptx": 500, "no_source": 500, "nothing": 500, "race": 200} {
		_, err := f.module.Function(name)
		f.code(want, err)
	}
	_, err := cu.LoadData("no PTX")
	f.code(218, err)
	_, err = cu.LoadData(".version 8.0\n.target sm_90\n")
	f.code(209, err)
}

func TestLimits(t *testing.T) {
	const invalidValue, outOfMemory, notFound = 1, 2, 500
	f := open(t)
	p := f.memory(4096)
	add, sums := f.function("add"), f.function("sums")
	launch := func(fn cu.Function, grid, block [3]int, sharedBytes int) error {
		return call.Launch(fn, grid, block, sharedBytes, f.stream, unsafe.Pointer(&two{p, p, 0}))
	}
	one := [3]int{1, 1, 1}
	f.code(invalidValue, launch(add, [3]int{1, 65536, 1}, one, 0))
	f.code(invalidValue, launch(add, [3]int{0, 1, 1}, one, 0))
	f.code(invalidValue, launch(add, one, [3]int{1025, 1, 1}, 0))
	f.code(invalidValue, launch(f.function("lanes"), one, [3]int{96, 1, 1}, 0))
	f.code(invalidValue, launch(sums, one, [3]int{32, 1, 1}, 48<<10+1))
	f.code(invalidValue, call.AllowShared(sums, 96<<10+1))
	f.ok(call.AllowShared(sums, 96<<10))
	f.ok(launch(sums, one, [3]int{32, 1, 1}, 96<<10))

	values := make([]byte, 5000)
	f.code(invalidValue, cu.MemcpyHtoD(p, unsafe.Pointer(&values[0]), 4097))
	f.code(invalidValue, cu.MemcpyDtoH(unsafe.Pointer(&values[0]), p+4000, 97))
	f.code(invalidValue, cu.MemsetD32(p+4, 0, 1024))
	f.code(invalidValue, cu.MemFree(p+256))
	for _, x := range download[float32](f, p+16, 4) {
		if !math.IsNaN(float64(x)) {
			f.Errorf("fresh memory reads %v", x)
		}
	}

	t.Setenv("IGC_EMULATED_MEMORY", "1000000")
	q := f.memory(900000)
	_, err := cu.MemAlloc(100000)
	f.code(outOfMemory, err)
	f.ok(cu.MemFree(q))
	f.memory(900000)
	free, total, err := cu.MemInfo()
	f.ok(err)
	if free != 1000000-900000-4096 || total != 1000000 {
		f.Errorf("%d of %d bytes are free", free, total)
	}

	f.code(notFound, call.Clone()) // what the library lacks, the shim answers
}

func TestCapture(t *testing.T) {
	const captureUnsupported, captureInvalidated = 900, 901
	f := open(t)
	p, out := f.memory(256*4), f.memory(4)
	args := vector{p, 256, 1}
	f.ok(call.Begin(f.stream, true))
	f.ok(cu.MemsetD32Async(p, 0, 256, f.stream))
	for range 3 {
		f.ok(f.start("add", 1, 256, 0, unsafe.Pointer(&args)))
		args.add *= 10 // the parameters are those of the launch
	}
	f.ok(f.start("sums", 1, 256, 32, unsafe.Pointer(&two{out, p, 256})))
	f.memory(16) // relaxed
	g, err := call.End(f.stream)
	f.ok(err)
	if x := download[float32](f, out, 1)[0]; x == x {
		f.Fatalf("the capture ran: %v", x)
	}
	for range 2 {
		f.ok(g.Launch(f.stream))
		if x := download[float32](f, out, 1)[0]; x != 256*111 {
			f.Fatalf("the replay gives %v, want %v", x, 256*111)
		}
	}
	f.ok(g.Destroy())

	f.ok(call.Begin(f.stream, true))
	f.code(captureUnsupported, f.stream.Synchronize())
	_, err = call.End(f.stream)
	f.code(captureInvalidated, err)

	f.ok(call.Begin(f.stream, false))
	_, err = cu.MemAlloc(16)
	f.code(captureUnsupported, err)
	_, err = call.End(f.stream)
	f.code(captureInvalidated, err)
	f.ok(f.stream.Synchronize())
}

// A second stream takes part in a capture from the moment it waits for an event of the first, and has to come back.
func TestCaptureOfTwoStreams(t *testing.T) {
	const unjoined = 904
	f := open(t)
	second, err := cu.MakeStream(cu.NonBlocking)
	f.ok(err)
	var events [2]cu.Event
	for i := range events {
		events[i], err = cu.MakeEvent(cu.DisableTiming)
		f.ok(err)
	}
	p := f.memory(16)
	for _, joined := range []bool{true, false} {
		f.ok(call.Begin(f.stream, true))
		f.ok(events[0].Record(f.stream))
		f.ok(second.Wait(events[0], 0))
		f.ok(cu.MemsetD32Async(p, 7, 4, second))
		f.ok(events[1].Record(second))
		if joined {
			f.ok(f.stream.Wait(events[1], 0))
		}
		g, err := call.End(f.stream)
		if !joined {
			f.code(unjoined, err)
			break
		}
		f.ok(err)
		f.ok(g.Launch(second))
		f.ok(second.Synchronize())
		if x := download[uint32](f, p, 4)[3]; x != 7 {
			t.Errorf("the replay gives %d, want 7", x)
		}
	}
}

func TestEventsAndContexts(t *testing.T) {
	f := open(t)
	from, err := cu.MakeEvent(cu.DefaultEvent)
	f.ok(err)
	to, err := cu.MakeEvent(cu.DefaultEvent)
	f.ok(err)
	p := f.memory(1 << 20)
	f.ok(from.Record(f.stream))
	f.ok(cu.MemsetD32Async(p, 0, 1<<18, f.stream))
	f.ok(to.Record(f.stream))
	f.ok(to.Synchronize())
	ms, err := from.Elapsed(to)
	f.ok(err)
	if ms <= 0 || ms > 1000 {
		f.Errorf("1 MiB was filled in %v ms", ms)
	}

	got := make(chan error)
	go func() {
		runtime.LockOSThread() // and not unlocked: the thread ends with the goroutine
		_, err := cu.MemAlloc(16)
		got <- err
	}()
	f.code(201, <-got) // that thread has no context
}

func TestWithoutADevice(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	here := os.Getenv("IGC_CUDA_LIBRARY")
	for _, c := range []struct{ driver, devices, want string }{
		{"/nonexistent", "", "0 <nil> /nonexistent: cannot open shared object file: No such file or directory\n"},
		{"libm.so.6", "", "0 <nil> libm.so.6: not a CUDA driver, it lacks cuInit or cuDeviceGetCount\n"},
		{here, "0", "0 <nil> cuInit: CUDA_ERROR_NO_DEVICE\n"},
		{here, "3", "3 <nil> \n"},
	} {
		cmd := exec.Command(self)
		cmd.Env = append(os.Environ(), "IGC_ASK=1", "IGC_CUDA_LIBRARY="+c.driver, "IGC_EMULATED_DEVICES="+c.devices)
		out, err := cmd.CombinedOutput()
		if err != nil || string(out) != c.want {
			t.Errorf("%s: %v\n%swant\n%s", c.driver, err, out, c.want)
		}
	}
}

func TestNoCompiler(t *testing.T) {
	t.Setenv("CXX", "no-such-compiler")
	if _, err := emulator.Build("testdata"); err == nil || !strings.Contains(err.Error(), "no-such-compiler") {
		t.Error(err)
	}
}

// Several threads of the host at once, each with its own context.
func TestThreadsOfTheHost(t *testing.T) {
	for i := range 4 {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			f := open(t)
			p, out := upload(f, make([]float32, 1024)), f.memory(4*4)
			for k := range 50 {
				f.ok(f.launch("add", 4, 256, 0, unsafe.Pointer(&vector{p, 1024, float32(i)})))
				f.ok(f.launch("sums", 4, 256, 32, unsafe.Pointer(&two{out, p, 1024})))
				if x := download[float32](f, out, 4)[3]; x != float32(256*i*(k+1)) {
					t.Fatalf("sum %v, want %v", x, 256*i*(k+1))
				}
			}
		})
	}
}

func BenchmarkLaunch(b *testing.B) {
	const n = 1 << 20
	for _, name := range []string{"add", "sums"} { // sums has 5 shuffles and 4 barriers a thread
		b.Run(name, func(b *testing.B) {
			f := open(b)
			p, out := f.memory(4*n), f.memory(4*n/256)
			f.ok(cu.MemsetD32(p, 0, n))
			args := map[string]unsafe.Pointer{
				"add":  unsafe.Pointer(&vector{p, n, 1}),
				"sums": unsafe.Pointer(&two{out, p, n}),
			}[name]
			for b.Loop() {
				f.ok(f.launch(name, n/256, 256, 32, args))
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/thread")
		})
	}
}
