//go:build gpu

package gpu

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sourcegraph/conc/iter"
	"gorgonia.org/cu"

	"igcsearch/space"
	"igcsearch/trainer"
	"igcsearch/trainer/dataset"
)

// The tests whose names begin with TestWaits are those that fail if a wait is missing.
// TestEveryWaitIsNeeded runs them once for each wait.

// TestWaitsOfATraining: the result of each method of a Model is there when it returns,
// and what it was given may change then.
func TestWaitsOfATraining(t *testing.T) {
	const batch, side, steps = 5, 4, 3
	set := pictureSet(steps*batch, 4*batch, side)
	for _, fed := range []bool{false, true} {
		t.Run(map[bool]string{false: "pictures on the device", true: "pictures from the host"}[fed], func(t *testing.T) {
			net := space.Figure3(space.Pair{L: 2, M: 2}, 2, space.Shape{C: 3, H: side, W: side}, 3)
			recipe := trainer.Recipe{Momentum: 0.9, WeightDecay: 0.01, DecayAll: true, Average: true, Precise: true}
			m := newModel(t, net, batch, set, recipe, fed)
			cpu := onBoth(t, m, net)
			push(t, m)
			for _, p := range m.host.Params { // the copy must be over
				for i := range p.Value {
					p.Value[i] = float32(math.NaN())
				}
			}
			order, list := dataset.Order(steps*batch, 3, 1), rates(0, steps)
			losses, want := onProcessor(t, cpu, set, order, list, recipe, batch)

			if err := m.Train(t.Context(), 1, order, list, func(step int, s trainer.Score) error {
				if !(math.Abs(s.Loss-losses[step]) <= 1e-4*losses[step]) {
					t.Errorf("loss of step %d is %.7f, the processor's %.7f", step, s.Loss, losses[step])
				}
				return nil
			}); err != nil {
				t.Fatal(err)
			}
			pictures, _, logits, err := m.Last()
			if err != nil || slices.ContainsFunc(append(pictures, logits...), isNaN) {
				t.Errorf("the last batch: %v and %v (%v)", pictures, logits, err)
			}
			pull(t, m)
			for i, p := range m.host.Params {
				near(t, p.Name, p.Value, cpu.Params[i].Value, 1e-4)
			}
			for i, s := range m.host.Stats {
				near(t, s.Name, s.Value, cpu.Stats[i].Value, 1e-4)
			}
			if err := m.Exchange(); err != nil {
				t.Fatal(err)
			}
			idle(t, m)
			pull(t, m)
			for i, p := range m.host.Params {
				near(t, "exchanged "+p.Name, p.Value, cpu.Params[i].Average, 1e-4)
			}
			if err := m.Measure(t.Context(), order[batch:]); err != nil {
				t.Fatal(err)
			}
			idle(t, m)
			pull(t, m)
			for i, s := range m.host.Precise {
				near(t, "precise "+s.Name, s.Value, cpu.Precise[i].Value, 1e-4)
			}
			got, err := m.Evaluate(t.Context(), &m.set.Test)
			if err != nil || got.Correct != want.Correct || !(math.Abs(got.Loss-want.Loss) <= 1e-4*want.Loss) {
				t.Errorf("score %+v (%v), the processor's %+v", got, err, want)
			}
		})
	}
}

func isNaN(v float32) bool { return v != v }

// newModel is a model of a set. If it is fed, the host sends it each batch, as it does
// with the pictures of a folder.
func newModel(t *testing.T, net space.Network, batch int, set *dataset.Set, r trainer.Recipe, fed bool) *Model {
	t.Helper()
	given := *set
	if fed {
		given.Train.Pixels = nil
	}
	m, err := open(t).New(net, batch, &given, r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	m.set = set
	if !fed {
		m.set = &given // by which its pictures are known
	}
	return m
}

// TestWaitsForANewModel: its memory is zero when it is there, not later.
func TestWaitsForANewModel(t *testing.T) {
	net := space.Figure3(space.Pair{L: 2, M: 2}, 1, space.Shape{C: 3, H: 4, W: 4}, 3)
	m := newModel(t, net, 5, pictureSet(5, 5, 4), trainer.Recipe{}, false)
	idle(t, m)
	pull(t, m)
	for _, p := range m.host.Params {
		near(t, p.Name, p.Value, make([]float32, len(p.Value)), 0)
	}
}

// TestWaitsAfterATrainingThatEnds: a training that its caller or its context ends leaves
// nothing in the stream.
func TestWaitsAfterATrainingThatEnds(t *testing.T) {
	const batch = 5
	set := pictureSet(6*batch, batch, 4)
	net := space.Figure3(space.Pair{L: 2, M: 2}, 1, space.Shape{C: 3, H: 4, W: 4}, 3)
	m := newModel(t, net, batch, set, trainer.Recipe{Momentum: 0.9}, false)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stop := errors.New("stop")
	for _, c := range []struct {
		done error
		end  func()
		want error
	}{{stop, func() {}, stop}, {nil, cancel, context.Canceled}} {
		order := dataset.Order(m.set.Train.Len(), 3, 1)
		err := m.Train(ctx, 1, order, rates(0, len(order)/batch), func(int, trainer.Score) error {
			c.end()
			return c.done
		})
		if !errors.Is(err, c.want) {
			t.Errorf("error %v, want %v", err, c.want)
		}
		idle(t, m)
	}
}

// idle wants nothing in the model's stream.
func idle(t *testing.T, m *Model) {
	t.Helper()
	if err := m.d.do(m.stream.Query); err != nil {
		t.Errorf("the stream is not idle: %v", err)
	}
}

// TestWaitsForThePictures: other streams find a set's pictures complete.
func TestWaitsForThePictures(t *testing.T) {
	d, set := open(t), pictureSet(20, 10, 4)
	got := make([]byte, len(set.Train.Pixels))
	labels := make([]int32, set.Train.Len())
	err := d.do(func() error {
		stream, err := cu.MakeStream(cu.NonBlocking)
		if err != nil {
			return err
		}
		defer func() { _ = stream.Destroy() }()
		p, err := d.hold(set, stream)
		if err != nil {
			return err
		}
		defer d.release(set)
		other, err := cu.MakeStream(cu.NonBlocking)
		if err != nil {
			return err
		}
		defer func() { _ = other.Destroy() }()
		return errors.Join(download(other, got, p.pixels.addr), download(other, labels, p.labels.addr), other.Synchronize())
	})
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, set.Train.Pixels) {
		t.Error("the pixels are others")
	}
	for i, l := range set.Train.Labels {
		if labels[i] != int32(l) {
			t.Fatalf("label %d is %d, want %d", i, labels[i], l)
		}
	}
}

// TestWaitsOfAMeasurement: what is measured is over before its time is taken, and nothing
// before it is still under way when its time begins.
func TestWaitsOfAMeasurement(t *testing.T) {
	const batch = 5
	net := space.Figure3(space.Pair{L: 2, M: 2}, 1, space.Shape{C: 3, H: 4, W: 4}, 3)
	m := newModel(t, net, batch, pictureSet(6*batch, batch, 4), trainer.Recipe{Momentum: 0.9}, false)
	if err := m.d.do(func() error { return m.rewind(2) }); err != nil {
		t.Fatal(err)
	}
	idle(t, m)
	if _, _, err := m.d.together([]*Model{m}, 1); err != nil {
		t.Fatal(err)
	}
	idle(t, m)
	defer func(d time.Duration) { warmUp = d }(warmUp)
	warmUp = 0
	if _, err := m.alone(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	idle(t, m)
	if _, err := m.starts(time.Second); err != nil {
		t.Fatal(err)
	}
	idle(t, m)

	t.Setenv("IGC_EMULATED_MEMORY", "33554432") // a copy of 1 MiB
	all, err := Devices()
	if err != nil {
		t.Fatal(err)
	}
	d, err := Open(all[len(all)-1].Index) // other tests hold memory of the first
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if flops, bandwidth, err := d.limits(); err != nil || !(flops > 0 && bandwidth > 0) {
		t.Errorf("%g operations and %g bytes a second (%v)", flops, bandwidth, err)
	}
}

// A wait is a call in the sources of this package without which the host or another
// stream may see what is not done yet.
type wait struct {
	file, function, text string
	from, to             int    // its place in the file
	without              string // the source that is there instead, for removedWait
	ofStream             bool   // whether a stream waits, which may be one call for many waits
}

// waitsOf lists the waits of a source file, in their order.
func waitsOf(t *testing.T, name string) (list []wait) {
	t.Helper()
	source := read(t, name)
	files := token.NewFileSet()
	file, err := parser.ParseFile(files, name, source, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	at := func(p token.Pos) int { return files.Position(p).Offset }
	function := ""
	ast.Inspect(file, func(n ast.Node) bool {
		if f, ok := n.(*ast.FuncDecl); ok {
			function = f.Name.Name
		}
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		callee, ok := call.Fun.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		from := source[at(callee.X.Pos()):at(callee.X.End())]
		w := wait{file: name, function: function, from: at(call.Pos()), to: at(call.End())}
		w.text = source[w.from:w.to]
		switch {
		case from == "C" && regexp.MustCompile(`^cu\w+(Synchronize|EventRecord\w*|WaitEvent)$`).MatchString(callee.Sel.Name):
			w.without = "removedWait(%d, func() C.CUresult { return " + w.text + " })"
		case callee.Sel.Name == "Synchronize", callee.Sel.Name == "wait" && len(call.Args) == 0,
			callee.Sel.Name == "Record" && len(call.Args) == 1, callee.Sel.Name == "Wait" && len(call.Args) == 2:
			w.without = "removedWait(%d, func() error { return " + w.text + " })"
			w.ofStream = callee.Sel.Name == "Wait"
		case from == "m" && callee.Sel.Name == "do": // Model.do waits, Device.do does not
			w.to = at(callee.End())
			w.without, w.text = "otherDo(%d, m.d.do, m.do)", "m.do(…)"
		default:
			return true
		}
		list = append(list, w)
		return true
	})
	return list
}

// removedWaits is part of the program that TestEveryWaitIsNeeded builds.
const removedWaits = `package gpu

import (
	"fmt"
	"os"
)

var removed, only, calls int // only: of the calls that this is about, 0 for all of them

func init() { fmt.Sscanf(os.Getenv("IGC_REMOVED_WAIT"), "%d:%d", &removed, &only) }

func isRemoved(n int) bool {
	if n != removed {
		return false
	}
	if calls++; only != 0 && calls != only {
		return false
	}
	fmt.Println("` + removedMark + `")
	return true
}

func removedWait[T any](n int, wait func() T) (none T) {
	if isRemoved(n) {
		return none
	}
	return wait()
}

func otherDo[T any](n int, without, do T) T {
	if isRemoved(n) {
		return without
	}
	return do
}
`

// removedMark is printed where a wait is left out.
const removedMark = "a wait is left out"

// TestEveryWaitIsNeeded removes each wait of this package in turn: without any one of
// them a test fails.
func TestEveryWaitIsNeeded(t *testing.T) {
	if os.Getenv("IGC_WAITS") != "1" {
		t.Skip("it builds the package once more: make gpu-waits runs it")
	}
	program, waits := buildWithoutWaits(t)
	for _, mode := range []string{"early", "random", "late"} {
		t.Setenv("IGC_EMULATED_STREAMS", mode)
		if out, err := runWithout(program, "", "0", "1"); err != nil {
			t.Fatalf("%s, with all waits: %v\n%s", mode, err, out)
		}
	}
	numbers := make([]int, len(waits))
	for i := range numbers {
		numbers[i] = i
	}
	mapper := iter.Mapper[int, []string]{MaxGoroutines: runtime.NumCPU()}
	var table strings.Builder
	count := 0
	for i, found := range mapper.Map(numbers, func(i *int) []string { return withoutEach(program, *i+1, waits[*i]) }) {
		for call, failure := range found {
			place := fmt.Sprintf("%s, %s: %s", waits[i].file, waits[i].function, waits[i].text)
			if call > 0 {
				place += fmt.Sprintf(", call %d", call)
			}
			if failure == "" {
				t.Errorf("%s: no test fails without it", place)
			}
			fmt.Fprintf(&table, "| %s | %s |\n", place, failure)
			count++
		}
	}
	t.Logf("%d waits; without it | this fails\n%s", count, table.String())
	if count != 28 {
		t.Errorf("%d waits, want 28: docs/gpu.md says it, and waitsOf must know how each is written", count)
	}
}

// withoutEach says how the tests fail without a wait, and of a stream's waits also how
// they fail without each call, for one network. What fails only in some of the orders
// that the streams allow gets several of them.
func withoutEach(program string, n int, w wait) (failures []string) {
	const orders = 12
	const oneModel = "^TestWaitsOfATraining$/^pictures_on_the_device$"
	try := func(tests, removed string) (failed string, reached bool) {
		for seed := range orders {
			out, err := runWithout(program, tests, removed, strconv.Itoa(seed+1))
			reached = bytes.Contains(out, []byte(removedMark))
			if err != nil {
				return failure(out), reached
			}
			if !reached {
				break
			}
		}
		return "", reached
	}
	failed, _ := try("", strconv.Itoa(n))
	failures = append(failures, failed)
	for call := 1; w.ofStream; call++ {
		failed, reached := try(oneModel, fmt.Sprintf("%d:%d", n, call))
		if !reached {
			break
		}
		failures = append(failures, failed)
	}
	return failures
}

// buildWithoutWaits makes a test program in which IGC_REMOVED_WAIT is the number of a
// wait that is not there, counted from 1.
func buildWithoutWaits(t *testing.T) (program string, waits []wait) {
	t.Helper()
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	replace := map[string]string{}
	put := func(name, text string) {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
		replace[filepath.Join(here, name)] = file
	}
	sources, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range sources {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		list := waitsOf(t, name)
		if len(list) == 0 {
			continue
		}
		text := read(t, name)
		for i, w := range slices.Backward(list) {
			text = text[:w.from] + fmt.Sprintf(w.without, len(waits)+i+1) + text[w.to:]
		}
		put(name, text)
		waits = append(waits, list...)
	}
	put("removed_waits.go", removedWaits)
	overlay, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		t.Fatal(err)
	}
	list, program := filepath.Join(dir, "overlay.json"), filepath.Join(dir, "waits.test")
	if err := os.WriteFile(list, overlay, 0o666); err != nil {
		t.Fatal(err)
	}
	build := exec.Command("go", "test", "-c", "-tags", "gpu", "-overlay", list, "-o", program, ".")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return program, waits
}

// runWithout runs the tests that need the waits, all or some, without one of these.
func runWithout(program, tests, removed, seed string) ([]byte, error) {
	cmd := exec.Command(program, "-test.run", cmp.Or(tests, "^TestWaits"), "-test.timeout", time.Minute.String())
	cmd.Env = append(os.Environ(), "IGC_WAITS=", "IGC_REMOVED_WAIT="+removed, "IGC_EMULATED_SEED="+seed)
	return cmd.CombinedOutput()
}

// failure is the first test that failed, and the first line of what it says.
func failure(out []byte) string {
	out = bytes.ReplaceAll(out, []byte(removedMark+"\n"), nil)
	test := regexp.MustCompile(`(?m)^\s*--- FAIL: (TestWaits\w*)`).FindSubmatch(out)
	line := regexp.MustCompile(`(?m)^(?:\s+\w+_test\.go:\d+|emulated GPU): (.*)$`).FindSubmatch(out)
	if test == nil || line == nil {
		first, _, _ := strings.Cut(string(out), "\n")
		return first
	}
	return fmt.Sprintf("%s: %s", test[1], line[1])
}
