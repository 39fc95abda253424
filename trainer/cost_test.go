package trainer_test

import (
	"bytes"
	"context"
	"errors"
	"math"
	"testing"
	"time"

	"igcsearch/search"
	"igcsearch/trainer"
)

// TestCosts measures networks, and leaves trainings as they are.
func TestCosts(t *testing.T) {
	s := tiny(t)
	s.Pairs, s.BNStatistics, s.BNPictures, s.WeightAverage = []string{"4x2", "8x2"}, search.BNPrecise, 32, 0.5
	s, err := s.Normalize()
	if err != nil {
		t.Fatal(err)
	}
	want := last(train(t, job(s, 0)))

	tr := trainer.New(trainer.Options{})
	systems := s.SystemList()
	costs, err := tr.Costs(t.Context(), s, systems, 3, 10*time.Millisecond)
	if err != nil || len(costs) != 2 {
		t.Fatalf("%d costs, %v", len(costs), err)
	}
	for i, c := range costs {
		if c.System != systems[i] || c.Epoch <= 0 || c.Evaluation <= 0 {
			t.Errorf("%d: %+v, want those of %v", i, c, systems[i])
		}
	}
	if costs[0].StateBytes != len(want) || costs[1].StateBytes <= len(want) {
		t.Errorf("checkpoints of %d and %d bytes; the training has %d", costs[0].StateBytes, costs[1].StateBytes,
			len(want))
	}
	var r recorder
	if err := tr.Train(t.Context(), job(s, 0), &r); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(last(&r), want) {
		t.Error("a training after the measurement has other bits")
	}

	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := tr.Costs(ended, s, systems, 2, time.Minute); !errors.Is(err, context.Canceled) {
		t.Errorf("of a context that ended: %v", err)
	}
}

// TestCostsCountPictures: an epoch of more pictures takes longer,
// whatever the size of the batch that was measured.
func TestCostsCountPictures(t *testing.T) {
	s := tiny(t)
	s.Batch, s.TrainPictures, s.TestPictures, s.Validation = 32, 96, 0, 0
	tr := trainer.New(trainer.Options{})
	shortest := func() float64 { // other programs make single measurements longer, never shorter
		seconds := math.Inf(1)
		for range 5 {
			costs, err := tr.Costs(t.Context(), s, s.SystemList(), 1, time.Second)
			if err != nil {
				t.Fatal(err)
			}
			seconds = min(seconds, costs[0].Epoch)
		}
		return seconds
	}
	small := shortest()
	s.TrainPictures *= 100
	if ratio := shortest() / small; ratio < 2 {
		t.Errorf("an epoch of 100 times the pictures takes %.0f times as long", ratio)
	}
}
