package table

import (
	"fmt"
	"math"

	"igcsearch/search"
)

// Pictures are how many pictures the splits of a study have.
type Pictures struct{ Train, Validation, Test int }

// Compare returns an error if the results are not of the study as far as their numbers show: the learning rates, when
// there was an evaluation, and of how many pictures. pictures are those of a trial by its seed; if it is nil, their numbers
// are not compared. rate is the learning rate of the last step of an epoch with so many steps.
func Compare(
	s search.Study, results []search.TrialState, pictures func(seed int) (Pictures, error),
	rate func(s search.Study, epoch, steps int) float64,
) error {
	study := s
	for _, t := range results {
		s := study.At(t.At)
		var want *Pictures
		if pictures != nil {
			of, err := pictures(t.Seed)
			if err != nil {
				return err
			}
			want = &of
		}
		for _, e := range t.History {
			steps := max(1, e.TrainTotal/s.Batch)
			if err := compare(s, e, want, rate(s, e.Number, steps)); err != nil {
				return fmt.Errorf("%v, epoch %d: %w", t.Key, e.Number, err)
			}
		}
	}
	return nil
}

func compare(s search.Study, e search.Epoch, pictures *Pictures, rate float64) error {
	differs := func(name string, there, here any) error {
		return fmt.Errorf("%s is %v, but in study %s it is %v", name, there, s.Name, here)
	}
	if math.Abs(e.LearningRate-rate) > 1e-9*rate { // spreadsheets round
		return differs("learning_rate", e.LearningRate, rate)
	}
	was := e.ValidationTotal+e.TestTotal > 0
	switch evaluated := s.Evaluates(e.Number); {
	case was && !evaluated:
		return fmt.Errorf("it was evaluated, but study %s evaluates every %d epochs and the last one", s.Name,
			s.EvaluateEvery)
	case evaluated && !was:
		return fmt.Errorf("it was not evaluated, but study %s evaluates every %d epochs and the last one", s.Name,
			s.EvaluateEvery)
	}
	if pictures == nil {
		return nil
	}
	batch := max(1, min(s.Batch, pictures.Train)) // settings may leave no picture to train on
	want := Pictures{Train: pictures.Train / batch * batch}
	if was {
		want.Validation, want.Test = pictures.Validation, pictures.Test
	}
	switch {
	case e.TrainTotal != want.Train:
		return differs("train_total", e.TrainTotal, want.Train)
	case e.ValidationTotal != want.Validation:
		return differs("validation_total", e.ValidationTotal, want.Validation)
	case e.TestTotal != want.Test:
		return differs("test_total", e.TestTotal, want.Test)
	}
	return nil
}
