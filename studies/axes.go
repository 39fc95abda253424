package studies

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"

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

// newStudyFile returns the file of a study.
func newStudyFile(s *search.Study) studyFile {
	of := func(key string) oneOrMore {
		values, isList := s.Values(key)
		return oneOrMore{key, values, isList}
	}
	return studyFile{s, of("epochs"), of("batch"), of("learning_rate"), of("weight_decay")}
}

// Encode returns a study as a study file.
func Encode(s search.Study) ([]byte, error) {
	var text bytes.Buffer
	err := toml.NewEncoder(&text).EnableMarshalerInterface().Encode(newStudyFile(&s))
	return text.Bytes(), err
}

// MarshalTOML returns the form of a study file.
func (o oneOrMore) MarshalTOML() ([]byte, error) {
	texts := make([]string, len(o.values))
	for i, x := range o.values {
		if texts[i] = strconv.FormatFloat(x, 'f', -1, 64); !search.WholeNumbers(o.key) && !strings.Contains(texts[i], ".") {
			texts[i] += ".0"
		}
	}
	text := strings.Join(texts, ", ")
	if o.isList {
		text = "[" + text + "]"
	}
	return []byte(text), nil
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
	file := newStudyFile(s)
	for _, o := range file.axes() {
		o.values = nil
	}
	if err := decode(&file); err != nil {
		return err
	}
	for _, o := range file.axes() {
		switch {
		case len(o.values) == 0:
		case o.isList || s.Axes.Has(o.key):
			s.Axes = s.Axes.With(o.key, o.values)
		default:
			s.SetValue(o.key, o.values[0])
		}
	}
	return nil
}

// axes are the fields that may be lists.
func (f *studyFile) axes() []*oneOrMore {
	return []*oneOrMore{&f.Epochs, &f.Batch, &f.LearningRate, &f.WeightDecay}
}
