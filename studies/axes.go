package studies

import (
	"fmt"

	"github.com/pelletier/go-toml/v2"

	"igcsearch/search"
)

// studyFile is a study whose settings that can be axes may have a list. Its fields take the place of
// those that the study has under the same keys.
type studyFile struct {
	*search.Study
	Epochs       oneOrMore `toml:"epochs"`
	Batch        oneOrMore `toml:"batch"`
	LearningRate oneOrMore `toml:"learning_rate"`
	WeightDecay  oneOrMore `toml:"weight_decay"`
}

// oneOrMore is a number of a study file, or a list of numbers.
type oneOrMore struct {
	key    string
	values []float64 // none: the file does not have the key
	isList bool
}

// UnmarshalTOML reads the value of a study file.
func (o *oneOrMore) UnmarshalTOML(value []byte) error {
	wrong := fmt.Errorf("%s: want %s", o.key, wanted(o.key))
	var read struct {
		Value any `toml:"value"`
	}
	if err := toml.Unmarshal(append([]byte("value = "), value...), &read); err != nil {
		return wrong
	}
	list, isList := read.Value.([]any)
	if !isList {
		list = []any{read.Value}
	}
	o.values, o.isList = nil, isList
	for _, item := range list {
		switch x := item.(type) {
		case int64:
			o.values = append(o.values, float64(x))
		case float64:
			if search.WholeNumbers(o.key) {
				return wrong
			}
			o.values = append(o.values, x)
		default:
			return wrong
		}
	}
	if len(o.values) == 0 {
		return wrong
	}
	return nil
}

// decodeAxes decodes a text into a study, whose settings may have lists there. One value leaves a
// setting that is an axis of the study an axis: the study then has a list of one value.
func decodeAxes(s *search.Study, decode func(into any) error) error {
	file := studyFile{s, oneOrMore{key: "epochs"}, oneOrMore{key: "batch"}, oneOrMore{key: "learning_rate"},
		oneOrMore{key: "weight_decay"}}
	if err := decode(&file); err != nil {
		return err
	}
	for _, o := range []oneOrMore{file.Epochs, file.Batch, file.LearningRate, file.WeightDecay} {
		if len(o.values) == 0 {
			continue
		}
		if isAxis := s.Axes.Has(o.key); o.isList || isAxis {
			s.Axes = s.Axes.With(o.key, o.values)
			continue
		}
		switch x := o.values[0]; o.key {
		case "epochs":
			s.Epochs = int(x)
		case "batch":
			s.Batch = int(x)
		case "learning_rate":
			s.LearningRate = x
		case "weight_decay":
			s.WeightDecay = x
		}
	}
	return nil
}
