//go:build gpu

package trainer_test

import (
	"bytes"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/sbinet/npyio/npz"

	"igcsearch/search"
	"igcsearch/trainer"
	"igcsearch/trainer/gpu"
	"igcsearch/trainer/gpu/emulator"
	"igcsearch/trainer/interchange"
)

func TestMain(m *testing.M) {
	if os.Getenv("IGC_EMULATED_DEVICES") == "" {
		os.Setenv("IGC_EMULATED_DEVICES", "2")
	}
	emulator.Main(m, "gpu/kernels")
}

// onGPU is a Trainer on the first GPU, or the emulated one.
func onGPU(t *testing.T, dataDir string) *trainer.Trainer {
	t.Helper()
	gpus, err := gpu.Devices()
	if err != nil {
		t.Fatal(err)
	}
	return trainer.New(trainer.Options{DataDir: dataDir, Devices: gpu.On(gpus[:1])})
}

func trainOn(t *testing.T, tr *trainer.Trainer, j search.Job) *recorder {
	t.Helper()
	var r recorder
	if err := tr.Train(t.Context(), j, &r); err != nil {
		t.Fatal(err)
	}
	return &r
}

// averaged is tiny with precise statistics and averaged weights, evaluated every other
// epoch.
func averaged(t *testing.T) search.Study {
	t.Helper()
	s := tiny(t)
	s.BNStatistics, s.BNPictures, s.WeightAverage, s.EvaluateEvery = search.BNPrecise, 32, 0.5, 2
	s.Schedule, s.Warmup = search.ScheduleCosine, 0.2
	s, err := s.Normalize()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// sameTraining holds two trainings of a job on different devices together: losses, and
// in the end weights and statistics, within a relative 1e-4, pictures within two.
func sameTraining(t *testing.T, j search.Job, got, want *recorder) {
	t.Helper()
	near := func(a, b, size float64) bool { return math.Abs(a-b) <= 1e-4*(size+math.Abs(b)) }
	if len(got.epochs) != len(want.epochs) {
		t.Fatalf("%d epochs, want %d", len(got.epochs), len(want.epochs))
	}
	for i, g := range got.epochs {
		w := want.epochs[i]
		close := func(a, b int) bool { return a-b <= 2 && b-a <= 2 }
		if !near(g.TrainLoss, w.TrainLoss, 0) || !near(g.TestLoss, w.TestLoss, 0) ||
			!near(g.ValidationLoss, w.ValidationLoss, 0) || !close(g.TrainCorrect, w.TrainCorrect) ||
			!close(g.TestCorrect, w.TestCorrect) ||
			!close(g.ValidationCorrect, w.ValidationCorrect) || g.TestTotal != w.TestTotal ||
			g.LearningRate != w.LearningRate {
			t.Errorf("epoch %d: %+v, on the processor %+v", i+1, g, w)
		}
	}
	weights := func(r *recorder) []interchange.Tensor {
		j.From = &r.checkpoints[len(r.checkpoints)-1]
		model, err := trainer.Weights(j)
		if err != nil {
			t.Fatal(err)
		}
		return model.Tensors
	}
	theirs := weights(want)
	for i, tensor := range weights(got) {
		sq := 0.
		for _, v := range theirs[i].Data {
			sq += float64(v) * float64(v)
		}
		size := math.Sqrt(sq / float64(len(tensor.Data)))
		for k, v := range tensor.Data {
			if w := theirs[i].Data[k]; !near(float64(v), float64(w), size) {
				t.Errorf("%s[%d] is %g, on the processor %g", tensor.Name, k, v, w)
				break
			}
		}
	}
}

func TestGPUTrainsAsTheProcessorDoes(t *testing.T) {
	for _, s := range []search.Study{tiny(t), averaged(t)} {
		j := job(s, 1)
		sameTraining(t, j, trainOn(t, onGPU(t, ""), j), train(t, j))
	}
}

func TestGPUResultIsAPureFunctionOfTheJob(t *testing.T) {
	tr := onGPU(t, "")
	whole := trainOn(t, tr, job(averaged(t), 3))
	t.Run("the same beside three others", func(t *testing.T) {
		var wg sync.WaitGroup
		results := make([]recorder, 4)
		for i := range results {
			wg.Go(func() {
				if err := tr.Train(t.Context(), job(averaged(t), i), &results[i]); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if !bytes.Equal(last(&results[3]), last(whole)) || !slices.Equal(results[3].epochs, whole.epochs) {
			t.Error("seed 3 differs from the run alone")
		}
	})
	for i, c := range whole.checkpoints[:3] {
		j := job(averaged(t), 3)
		j.From = &c
		r := trainOn(t, tr, j)
		if !bytes.Equal(last(r), last(whole)) || !slices.Equal(r.epochs, whole.epochs[i+1:]) {
			t.Errorf("continued from epoch %d it differs", i+1)
		}
	}
	for _, every := range []int{1, 4} {
		s := averaged(t)
		s.EvaluateEvery = every
		if r := trainOn(t, tr, job(s, 3)); !bytes.Equal(last(r), last(whole)) {
			t.Errorf("evaluated every %d epochs it ends with other weights", every)
		}
	}
}

// TestGPUIsFedByTheHost: a folder's pictures are decoded there.
func TestGPUIsFedByTheHost(t *testing.T) {
	dir := t.TempDir()
	for i := range 60 {
		class := []string{"dark", "light", "red"}[i%3]
		m := image.NewRGBA(image.Rect(0, 0, 12, 10))
		for p := range 120 {
			v := uint8(i*31 + p*p*7)
			m.Set(p%12, p/12, color.RGBA{v/2 + uint8(100*(i%3)), v, v / uint8(1+i%3), 255})
		}
		folder := filepath.Join(dir, map[bool]string{true: "train", false: "test"}[i < 40], class)
		if err := os.MkdirAll(folder, 0o777); err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		if err := png.Encode(&b, m); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(folder, fmt.Sprintf("%d.png", i)), b.Bytes(), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	s := averaged(t)
	s.Dataset, s.Size, s.Resize, s.TrainPictures, s.TestPictures, s.Validation, s.Augment = "folder", 8, 9, 0, 0, 0,
		search.AugmentScaleCropMirror
	s.ResizeMax, s.Pad = 11, 0
	var err error
	if s, err = s.Normalize(); err != nil {
		t.Fatal(err)
	}
	var want recorder
	if err := trainer.New(trainer.Options{DataDir: dir}).Train(t.Context(), job(s, 1), &want); err != nil {
		t.Fatal(err)
	}
	sameTraining(t, job(s, 1), trainOn(t, onGPU(t, dir), job(s, 1)), &want)
}

// TestGPUTrace writes what the processor's has.
func TestGPUTrace(t *testing.T) {
	names := func(tr *trainer.Trainer) (names []string, images []float32) {
		var b bytes.Buffer
		if err := tr.Trace(t.Context(), job(averaged(t), 1), 2, &b); err != nil {
			t.Fatal(err)
		}
		r, err := npz.NewReader(bytes.NewReader(b.Bytes()), int64(b.Len()))
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Read("step/1/images.npy", &images); err != nil {
			t.Fatal(err)
		}
		return r.Keys(), images
	}
	got, x := names(onGPU(t, ""))
	want, y := names(trainer.New(trainer.Options{}))
	if !slices.Equal(got, want) {
		t.Errorf("%v, on the processor %v", got, want)
	}
	if !slices.EqualFunc(x, y, func(a, b float32) bool { return math.Float32bits(a) == math.Float32bits(b) }) {
		t.Error("the pictures of the second step differ")
	}
}

func TestGPUWorkers(t *testing.T) {
	n, err := onGPU(t, "").Workers(t.Context(), tiny(t))
	if err != nil || n < 1 {
		t.Errorf("%d workers, %v", n, err)
	}
}

// TestGPUFaults: of two GPUs one fails in the midst of trainings, in different kernels
// and at different calls. All trainings end with the bits that they have without a fault.
func TestGPUFaults(t *testing.T) {
	gpus, err := gpu.Devices()
	if err != nil {
		t.Fatal(err)
	}
	if len(gpus) < 2 {
		t.Skip("one GPU")
	}
	s := averaged(t)
	var want []*recorder
	for i := range 3 {
		want = append(want, trainOn(t, onGPU(t, ""), job(s, i)))
	}
	for _, c := range []struct {
		fault string
		lost  []string // what some training is told
	}{
		{"1:1", []string{"ILLEGAL_ADDRESS: the device is opened anew"}},
		{"1:100:MISALIGNED_ADDRESS", []string{"MISALIGNED_ADDRESS: the device is opened anew"}},
		{"1:50:ECC_UNCORRECTABLE 1:200:LAUNCH_FAILED", []string{"ECC_UNCORRECTABLE: the device is opened anew",
			"LAUNCH_FAILED: it is the second time, so nothing more is trained on this device"}},
	} {
		t.Run(c.fault, func(t *testing.T) {
			emulator.Inject(t, "IGC_EMULATED_FAULT", c.fault)
			tr := trainer.New(trainer.Options{Devices: gpu.On(gpus[:2])})
			var mu sync.Mutex
			var lost []string
			var wg sync.WaitGroup
			for i := range want {
				wg.Go(func() {
					var r recorder
					for j := job(s, i); ; {
						err := tr.Train(t.Context(), j, &r)
						if err == nil {
							break
						}
						if !errors.Is(err, search.ErrDevice) {
							t.Error(err)
							return
						}
						mu.Lock()
						lost = append(lost, err.Error())
						mu.Unlock()
						if n := len(r.checkpoints); n > 0 {
							j.From = &r.checkpoints[n-1]
						}
					}
					if !bytes.Equal(last(&r), last(want[i])) || !slices.Equal(r.epochs, want[i].epochs) {
						t.Errorf("seed %d ends with other bits than without a fault", i)
					}
				})
			}
			wg.Wait()
			for _, text := range c.lost {
				if !slices.ContainsFunc(lost, func(l string) bool {
					return strings.HasSuffix(l, "cuda:1 (Emulated GPU) failed: CUDA_ERROR_"+text)
				}) {
					t.Errorf("no training was told %q, but %q", text, lost)
				}
			}
		})
	}
}

// TestGPUThatCannotBeOpened: one that was there when the program began, and is not when it
// is opened, is left out like one that fails. Otherwise each next trial would go to it,
// which always has the fewest trainings.
func TestGPUThatCannotBeOpened(t *testing.T) {
	gpus, err := gpu.Devices()
	if err != nil {
		t.Fatal(err)
	}
	gone := gpus[0]
	gone.Index = 99
	s := tiny(t)
	tr := trainer.New(trainer.Options{Devices: gpu.On([]gpu.Info{gone, gpus[0]})})
	failed := 0
	for i := range 3 {
		for {
			err := tr.Train(t.Context(), job(s, i), &recorder{})
			if err == nil {
				break
			}
			failed++
			if !errors.Is(err, search.ErrDevice) || !strings.HasPrefix(err.Error(), gone.String()+" failed: no GPU 99: ") {
				t.Fatal(err)
			}
		}
	}
	if failed != 1 { // then the other one has fewer faults
		t.Errorf("the GPU that is gone was tried %d times, want 1", failed)
	}
	tr = trainer.New(trainer.Options{Devices: gpu.On([]gpu.Info{gone})})
	if _, err := tr.Workers(t.Context(), s); !errors.Is(err, search.ErrNoDevice) {
		t.Errorf("workers: error %v", err)
	}
}
