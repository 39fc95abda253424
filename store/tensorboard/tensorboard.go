// Package tensorboard writes the epochs of a study as event files, which TensorBoard shows
// (https://www.tensorflow.org/tensorboard). Each trial is a run: a folder DIR/STUDY/RUN with one file.
//
// The step of a scalar is the number of the epoch. The tags are accuracy/SPLIT in percent and loss/SPLIT in nats, for each of
// the splits train, validation and test that was measured, learning_rate, and seconds/train and seconds/evaluation. The
// wall time of an epoch is the start of the trial's first attempt plus the seconds of the epochs up to this one: pauses
// between attempts do not count. So the same results give the same bytes.
//
// For the plugin HParams a run is a session. The sessions of one network of a study, in a study with lists of settings
// those of the same values, are a group, of which TensorBoard shows the mean: the mean over the seeds. The name of a group
// begins with the study, because TensorBoard joins groups of one name from all studies below DIR.
package tensorboard

//go:generate protoc --go_out=. --go_opt=paths=source_relative event.proto

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/renameio/v2"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"igcsearch/search"
	"igcsearch/search/regular"
)

// Run is a trial with what TensorBoard shows of it.
type Run struct {
	search.TrialState           // with its History
	Started           time.Time // the trial's first attempt
}

// file is the name of the file of each run. TensorBoard takes a file if its name contains "tfevents".
const file = "events.out.tfevents.igcsearch"

// Write writes an event file for each run that has an epoch, and returns how many. It creates the folders that are missing.
// Of a file that exists, the events that are new are written behind the others, because TensorBoard goes on reading the
// file that it has opened, and never sees one that takes its place. A file with other events is replaced, in one step.
// Files of runs that are not in the list stay.
func Write(dir string, s search.Study, runs []Run) (written int, err error) {
	for _, r := range runs {
		if len(r.History) == 0 {
			continue
		}
		text, err := events(s.At(r.At), r)
		if err != nil {
			return written, fmt.Errorf("%v: %w", r.Key, err)
		}
		place := filepath.Join(dir, s.Name, name(r.Key))
		if err := os.MkdirAll(place, 0o777); err != nil {
			return written, err
		}
		if err := write(filepath.Join(place, file), text); err != nil {
			return written, err
		}
		written++
	}
	return written, nil
}

// write makes text the content of a file. If the file is the beginning of text, also one that ends within an event, the
// rest is appended.
func write(path string, text []byte) error {
	old, err := regular.ReadUnlinked(path, int64(len(text)))
	if err != nil || !bytes.HasPrefix(text, old) {
		return renameio.WriteFile(path, text, 0o666, renameio.WithTempDir(filepath.Dir(path)))
	}
	if len(old) == len(text) {
		return nil
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	// Another process that does the same writes the same bytes to the same place.
	_, err = f.WriteAt(text[len(old):], int64(len(old)))
	return errors.Join(err, f.Close())
}

// name is the folder of a run, "L40M2-seed-3".
func name(k search.Key) string {
	return strings.NewReplacer(", ", "-", " ", "-", "/", "-").Replace(k.String())
}

// events is the event file of a run, of a study with the values of its point.
func events(s search.Study, r Run) ([]byte, error) {
	var out bytes.Buffer
	at := float64(r.Started.UnixMilli()) / 1000
	add := func(e *Event) error {
		e.WallTime = at
		return record(&out, e)
	}
	if err := add(&Event{What: &Event_FileVersion{"brain.Event:2"}}); err != nil {
		return nil, err
	}
	start, err := session("_hparams_/session_start_info", &HParamsPluginData{Data: &HParamsPluginData_SessionStartInfo{
		SessionStartInfo: &SessionStartInfo{Hparams: settings(s, r.Trial), GroupName: s.Name + " " + r.Key.Label(),
			StartTimeSecs: at}}})
	if err != nil {
		return nil, err
	}
	if err := add(start); err != nil {
		return nil, err
	}
	for _, e := range r.History {
		at += e.TrainSeconds + e.EvalSeconds
		if err := add(&Event{Step: int64(e.Number), What: &Event_Summary{&Summary{Value: scalars(e)}}}); err != nil {
			return nil, err
		}
	}
	status := Status_STATUS_FAILURE
	switch r.Status {
	case search.Done:
		status = Status_STATUS_SUCCESS
	case search.Diverged, search.Failed:
	default:
		return out.Bytes(), nil // the session goes on
	}
	end, err := session("_hparams_/session_end_info", &HParamsPluginData{Data: &HParamsPluginData_SessionEndInfo{
		SessionEndInfo: &SessionEndInfo{Status: status, EndTimeSecs: at}}})
	if err != nil {
		return nil, err
	}
	err = add(end)
	return out.Bytes(), err
}

// scalars are the values of an epoch that were measured.
func scalars(e search.Epoch) (list []*Summary_Value) {
	add := func(tag string, x float64) {
		list = append(list, &Summary_Value{Tag: tag, Value: &Summary_Value_SimpleValue{float32(x)}})
	}
	for _, split := range []string{search.SplitTrain, search.SplitValidation, search.SplitTest} {
		if correct, total := e.Correct(split); total > 0 {
			add("accuracy/"+split, 100*float64(correct)/float64(total))
		}
	}
	add("loss/train", e.TrainLoss)
	for _, split := range []string{search.SplitValidation, search.SplitTest} {
		if loss := e.Loss(split); loss > 0 { // 0 was not recorded
			add("loss/"+split, loss)
		}
	}
	add("learning_rate", e.LearningRate)
	add("seconds/train", e.TrainSeconds)
	if e.EvalSeconds > 0 {
		add("seconds/evaluation", e.EvalSeconds)
	}
	return list
}

// settings are what distinguishes the networks of a study, and what people compare of several studies. The seed is no
// part of them: the sessions of a group have the same.
func settings(s search.Study, t search.Trial) map[string]*structpb.Value {
	number, text := structpb.NewNumberValue, structpb.NewStringValue
	m := map[string]*structpb.Value{
		"network": text(t.System.Label()), "params": number(float64(t.Params)),
		"multiply_adds": number(float64(t.MultiplyAdds)), "dataset": text(s.Dataset), "epochs": number(float64(t.Epochs)),
		"batch": number(float64(s.Batch)), "learning_rate": number(s.LearningRate), "weight_decay": number(s.WeightDecay),
		"momentum": number(s.Momentum), "augment": text(s.Augment),
	}
	if s.OfPairs() {
		p := t.System.Pair()
		m["L"], m["M"], m["width"] = number(float64(p.L)), number(float64(p.M)), number(float64(p.Width()))
	}
	return m
}

// session is an event of the plugin HParams.
func session(tag string, data *HParamsPluginData) (*Event, error) {
	content, err := proto.MarshalOptions{Deterministic: true}.Marshal(data)
	return &Event{What: &Event_Summary{&Summary{Value: []*Summary_Value{{Tag: tag, Metadata: &SummaryMetadata{
		PluginData: &SummaryMetadata_PluginData{PluginName: "hparams", Content: content}}}}}}}, err
}

// record appends an event as a TFRecord: its length, the checksum of the length, its bytes and their checksum, all
// numbers with the lowest byte first (https://www.tensorflow.org/tutorials/load_data/tfrecord).
func record(out *bytes.Buffer, e *Event) error {
	data, err := proto.MarshalOptions{Deterministic: true}.Marshal(e)
	if err != nil {
		return err
	}
	length := binary.LittleEndian.AppendUint64(nil, uint64(len(data)))
	out.Write(length)
	out.Write(checksum(length))
	out.Write(data)
	out.Write(checksum(data))
	return nil
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// checksum is the masked CRC-32C of a TFRecord.
func checksum(data []byte) []byte {
	sum := crc32.Checksum(data, castagnoli)
	return binary.LittleEndian.AppendUint32(nil, (sum>>15|sum<<17)+0xa282ead8)
}
