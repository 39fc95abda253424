package search

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
)

// Epoch holds what one epoch of a training measured, as raw counts. docs/design.md says where a new
// metric goes.
type Epoch struct {
	Number       int     // 1 … Study.Epochs
	LearningRate float64 // the learning rate of the epoch's last step
	// TrainLoss is the mean cross-entropy (nats) of the epoch's augmented pictures. The loss of a
	// picture is taken in the step that trains on it, before the update.
	TrainLoss float64
	// These counts are of pictures: how many were classified correctly, out of how many. A total of
	// 0 means that the split was not evaluated.
	TrainCorrect, TrainTotal           int
	ValidationCorrect, ValidationTotal int
	TestCorrect, TestTotal             int
	// ValidationLoss and TestLoss are the mean cross-entropy (nats) of the evaluated pictures. They
	// are 0 without an evaluation, or if an older igcsearch measured the epoch.
	ValidationLoss, TestLoss float64
	// TrainSeconds is the time of the training steps and their input, without loading the data set
	// and without evaluation, which takes EvalSeconds.
	TrainSeconds float64
	EvalSeconds  float64
}

// EpochValue is one value of an Epoch.
type EpochValue struct {
	Name string
	At   any  // a pointer into the Epoch, of type *int or *float64
	Time bool // whether the value is a time, which differs if the same training is repeated
	// Optional values are numbers above 0. A 0 means that the value was not recorded: by an older
	// igcsearch, or without an evaluation.
	Optional bool
}

// Values lists all values of the epoch with their names in JSON.
func (e *Epoch) Values() []EpochValue {
	return []EpochValue{
		{Name: "number", At: &e.Number},
		{Name: "learning_rate", At: &e.LearningRate},
		{Name: "train_loss", At: &e.TrainLoss},
		{Name: "train_correct", At: &e.TrainCorrect},
		{Name: "train_total", At: &e.TrainTotal},
		{Name: "validation_correct", At: &e.ValidationCorrect},
		{Name: "validation_total", At: &e.ValidationTotal},
		{Name: "test_correct", At: &e.TestCorrect},
		{Name: "test_total", At: &e.TestTotal},
		{Name: "validation_loss", At: &e.ValidationLoss, Optional: true},
		{Name: "test_loss", At: &e.TestLoss, Optional: true},
		{Name: "train_seconds", At: &e.TrainSeconds, Time: true},
		{Name: "eval_seconds", At: &e.EvalSeconds, Time: true},
	}
}

// Correct returns the counts of a split.
func (e Epoch) Correct(split string) (correct, total int) {
	switch split {
	case SplitTrain:
		return e.TrainCorrect, e.TrainTotal
	case SplitValidation:
		return e.ValidationCorrect, e.ValidationTotal
	}
	return e.TestCorrect, e.TestTotal
}

// Loss returns the loss of a split, SplitValidation or SplitTest.
func (e Epoch) Loss(split string) float64 {
	if split == SplitValidation {
		return e.ValidationLoss
	}
	return e.TestLoss
}

// MarshalJSON writes the epoch so that UnmarshalJSON restores every bit. Workers send their results
// in this form.
func (e Epoch) MarshalJSON() ([]byte, error) {
	text := []byte{'{'}
	for i, v := range e.Values() {
		if i > 0 {
			text = append(text, ',')
		}
		text = fmt.Appendf(text, "%q:", v.Name)
		switch at := v.At.(type) {
		case *int:
			text = strconv.AppendInt(text, int64(*at), 10)
		case *float64:
			text = appendExact(text, *at)
		}
	}
	return append(text, '}'), nil
}

// UnmarshalJSON reads the JSON that MarshalJSON wrote.
func (e *Epoch) UnmarshalJSON(text []byte) error {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(text, &fields); err != nil {
		return err
	}
	*e = Epoch{}
	for _, v := range e.Values() {
		field, there := fields[v.Name]
		if !there {
			continue
		}
		var err error
		switch at := v.At.(type) {
		case *int:
			err = json.Unmarshal(field, at)
		case *float64:
			*at, err = parseExact(field)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", v.Name, err)
		}
	}
	return nil
}

// appendExact appends a float64 as JSON. JSON has neither NaN nor infinities, so appendExact writes
// their bits in quotes.
func appendExact(text []byte, x float64) []byte {
	if math.IsNaN(x) || math.IsInf(x, 0) {
		return fmt.Appendf(text, `"%016x"`, math.Float64bits(x))
	}
	return strconv.AppendFloat(text, x, 'g', -1, 64)
}

// parseExact reads what appendExact wrote.
func parseExact(text []byte) (float64, error) {
	if quoted, ok := bytes.CutPrefix(text, []byte(`"`)); ok {
		bits, err := strconv.ParseUint(string(bytes.TrimSuffix(quoted, []byte(`"`))), 16, 64)
		return math.Float64frombits(bits), err
	}
	return strconv.ParseFloat(string(text), 64)
}

// Check returns an error for counts and numbers that no training measures.
func (e *Epoch) Check() error {
	for _, of := range []struct {
		split          string
		correct, total int
	}{
		{"train", e.TrainCorrect, e.TrainTotal},
		{"validation", e.ValidationCorrect, e.ValidationTotal},
		{"test", e.TestCorrect, e.TestTotal},
	} {
		if of.correct < 0 || of.correct > of.total {
			return fmt.Errorf("%s_correct is %d and %s_total %d: want 0 or more, and no more than the total",
				of.split, of.correct, of.split, of.total)
		}
	}
	for _, v := range e.Values() {
		x, ok := v.At.(*float64)
		switch {
		case !ok || v.Name == "train_loss": // what diverged may have any loss
		case !(*x >= 0): // or not a number
			return fmt.Errorf("%s is %g: want 0 or more", v.Name, *x)
		case math.IsInf(*x, 1) && !v.Optional: // the loss of an evaluation may be infinite
			return fmt.Errorf("%s is infinite", v.Name)
		}
	}
	return nil
}
