package search

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
)

// Epoch holds what one epoch of a training measured, as raw counts. A metric that is added here needs a line in
// Values too.
type Epoch struct {
	Number       int     // 1 … Epochs
	LearningRate float64 // of the epoch's last step
	// TrainLoss is the mean cross-entropy (nats) over the epoch's pictures,
	// as they were augmented, by the weights of their step.
	TrainLoss                          float64
	TrainCorrect, TrainTotal           int
	ValidationCorrect, ValidationTotal int // total 0: not evaluated
	TestCorrect, TestTotal             int // total 0: not evaluated
	// ValidationLoss and TestLoss are the mean cross-entropy (nats) of the
	// evaluated pictures; 0 if there are none, or if an older igcsearch measured
	// the epoch.
	ValidationLoss, TestLoss float64
	// TrainSeconds covers training steps and their input; loading and
	// evaluation excluded.
	TrainSeconds float64
	EvalSeconds  float64
}

// EpochValue is one value of an Epoch.
type EpochValue struct {
	Name string
	At   any  // *int or *float64, into the Epoch
	Time bool // it is a time, which differs when the same training is repeated
}

// Values lists all values of the epoch by their names in JSON.
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
		{Name: "validation_loss", At: &e.ValidationLoss},
		{Name: "test_loss", At: &e.TestLoss},
		{Name: "train_seconds", At: &e.TrainSeconds, Time: true},
		{Name: "eval_seconds", At: &e.EvalSeconds, Time: true},
	}
}

// Correct returns the counts of a split.
func (e Epoch) Correct(split string) (correct, total int) {
	if split == SplitValidation {
		return e.ValidationCorrect, e.ValidationTotal
	}
	return e.TestCorrect, e.TestTotal
}

// Loss is ValidationLoss or TestLoss, that of a split.
func (e Epoch) Loss(split string) float64 {
	if split == SplitValidation {
		return e.ValidationLoss
	}
	return e.TestLoss
}

// MarshalJSON keeps every bit: workers hand their results over in this form.
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

// UnmarshalJSON reads what MarshalJSON wrote.
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

// appendExact writes a float64 for JSON. JSON has neither NaN nor infinities, so these are written as their bits in
// quotes.
func appendExact(text []byte, x float64) []byte {
	if math.IsNaN(x) || math.IsInf(x, 0) {
		return fmt.Appendf(text, `"%016x"`, math.Float64bits(x))
	}
	return strconv.AppendFloat(text, x, 'g', -1, 64)
}

func parseExact(text []byte) (float64, error) {
	if quoted, ok := bytes.CutPrefix(text, []byte(`"`)); ok {
		bits, err := strconv.ParseUint(string(bytes.TrimSuffix(quoted, []byte(`"`))), 16, 64)
		return math.Float64frombits(bits), err
	}
	return strconv.ParseFloat(string(text), 64)
}
