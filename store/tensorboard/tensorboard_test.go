package tensorboard_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protowire"

	"igcsearch/search"
	"igcsearch/store/tensorboard"
)

// runs are three trials of a study: one is done, one diverged, one has not begun.
func runs(t *testing.T) (search.Study, []tensorboard.Run) {
	s := search.Default()
	s.Name, s.Dataset, s.Pairs, s.Seeds, s.Epochs, s.Validation = "tiny", "synthetic", []string{"3x2"},
		search.FirstSeeds(3), 2, 50
	s, err := s.Normalize()
	if err != nil {
		t.Fatal(err)
	}
	var list []tensorboard.Run
	for i, planned := range s.Trials(s.Shape()) {
		r := tensorboard.Run{TrialState: search.TrialState{Trial: planned}, Started: time.UnixMilli(1e12 + 500)}
		for n := range 2 - i {
			r.History = append(r.History, search.Epoch{Number: n + 1, LearningRate: 0.125, TrainLoss: 2.5 - float64(n),
				TrainCorrect: 16, TrainTotal: 64, TrainSeconds: 1.5})
		}
		list = append(list, r)
	}
	last := &list[0].History[1]
	last.ValidationCorrect, last.ValidationTotal, last.ValidationLoss = 25, 50, 0.75
	last.TestCorrect, last.TestTotal, last.TestLoss, last.EvalSeconds = 30, 40, math.Inf(1), 0.25
	list[0].Status, list[1].Status = search.Done, search.Diverged
	list[1].History[0].TrainLoss = math.NaN()
	return s, list
}

// TestEventFile reads the files without the code that wrote them: the records by their layout, the messages by the numbers
// of TensorBoard's fields.
func TestEventFile(t *testing.T) {
	t.Parallel()
	s, list := runs(t)
	dir := t.TempDir()
	if n, err := tensorboard.Write(dir, s, list); n != 2 || err != nil {
		t.Fatalf("%d runs written, %v; want 2", n, err)
	}
	found, err := filepath.Glob(filepath.Join(dir, "*", "*", "*"))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, path := range found {
		name, _ := filepath.Rel(dir, path)
		names = append(names, name)
	}
	if diff := cmp.Diff([]string{"tiny/L3M2-seed-0/events.out.tfevents.igcsearch",
		"tiny/L3M2-seed-1/events.out.tfevents.igcsearch"}, names); diff != "" {
		t.Fatal(diff)
	}
	if diff := cmp.Diff(strings.TrimSpace(`
1000000000.5: brain.Event:2
1000000000.5: _hparams_/session_start_info of hparams: L=3 M=2 augment=crop-mirror batch=64 dataset=synthetic epochs=2 learning_rate=0.1 momentum=0.9 multiply_adds=235068 network=L3M2 params=988 weight_decay=0.0001 width=6, group tiny L3M2
1000000002.0 step 1: accuracy/train=25 loss/train=2.5 learning_rate=0.125 seconds/train=1.5
1000000003.8 step 2: accuracy/train=25 accuracy/validation=50 accuracy/test=75 loss/train=1.5 loss/validation=0.75 loss/test=+Inf learning_rate=0.125 seconds/train=1.5 seconds/evaluation=0.25
1000000003.8: _hparams_/session_end_info of hparams: status 1
`), readEvents(t, found[0])); diff != "" {
		t.Error(diff)
	}
	if got := readEvents(t, found[1]); !strings.Contains(got, "loss/train=NaN") || !strings.Contains(got, "status 2") {
		t.Errorf("a trial that diverged:\n%s", got)
	}

	before, err := os.ReadFile(found[0])
	if err != nil {
		t.Fatal(err)
	}
	// Every event file of TensorFlow begins so: a record of 24 bytes, and the checksum of this length.
	if begins := "1800000000000000a37f4b22"; !strings.HasPrefix(hex.EncodeToString(before), begins) {
		t.Errorf("the file begins with %x, want %s", before[:12], begins)
	}
	if _, err := tensorboard.Write(dir, s, list); err != nil {
		t.Fatal(err)
	}
	if again, err := os.ReadFile(found[0]); err != nil || !bytes.Equal(again, before) {
		t.Errorf("written again, the file has other bytes (%v)", err)
	}
}

// TestGrowingFile: TensorBoard keeps a file open, so the epochs that are new are written to the same file. One with other
// events is replaced.
func TestGrowingFile(t *testing.T) {
	t.Parallel()
	s, list := runs(t)
	dir := t.TempDir()
	path := filepath.Join(dir, "tiny", "L3M2-seed-0", "events.out.tfevents.igcsearch")
	write := func(status search.Status, epochs int) []byte {
		t.Helper()
		r := list[0]
		r.Status, r.History = status, r.History[:epochs]
		if _, err := tensorboard.Write(dir, s, []tensorboard.Run{r}); err != nil {
			t.Fatal(err)
		}
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return content
	}
	first := write(search.Running, 1)
	opened, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer opened.Close()
	whole := write(search.Done, 2)
	if seen, err := io.ReadAll(opened); err != nil || !bytes.Equal(seen, whole) || !bytes.HasPrefix(whole, first) {
		t.Errorf("a reader that has the file open sees %d bytes of %d, %v", len(seen), len(whole), err)
	}
	if err := os.Truncate(path, int64(len(whole)-5)); err != nil { // a process that was killed
		t.Fatal(err)
	}
	if again := write(search.Done, 2); !bytes.Equal(again, whole) {
		t.Errorf("after a kill the file has %d bytes, want the %d from before", len(again), len(whole))
	}
	list[0].History[0].TrainLoss = 9
	write(search.Done, 2)
	if got := readEvents(t, path); strings.Count(got, "step") != 2 || !strings.Contains(got, "loss/train=9") {
		t.Errorf("with another loss:\n%s", got)
	}
}

// A trial that is not finished has no end yet, so that TensorBoard shows it as running.
func TestRunningTrial(t *testing.T) {
	t.Parallel()
	s, list := runs(t)
	list[0].Status = search.Running
	dir := t.TempDir()
	if _, err := tensorboard.Write(dir, s, list[:1]); err != nil {
		t.Fatal(err)
	}
	if got := readEvents(t, filepath.Join(dir, "tiny", "L3M2-seed-0", "events.out.tfevents.igcsearch")); strings.Contains(got,
		"session_end_info") {
		t.Error(got)
	}
}

// readEvents returns a line for each event of a file.
func readEvents(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	masked := func(b []byte) uint32 {
		sum := crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli))
		return (sum>>15 | sum<<17) + 0xa282ead8
	}
	var lines []string
	for len(text) > 0 {
		n := binary.LittleEndian.Uint64(text)
		data := text[12 : 12+n]
		if masked(text[:8]) != binary.LittleEndian.Uint32(text[8:]) || masked(data) != binary.LittleEndian.Uint32(text[12+n:]) {
			t.Fatalf("event %d has a wrong checksum", len(lines))
		}
		lines = append(lines, readEvent(t, data))
		text = text[16+n:]
	}
	return strings.Join(lines, "\n")
}

func readEvent(t *testing.T, data []byte) string {
	e := message(t, data)
	line := fmt.Sprintf("%.1f", math.Float64frombits(e.number(1)))
	if step := e.number(2); step > 0 {
		line += fmt.Sprintf(" step %d", step)
	}
	line += ":"
	for _, version := range e[3] {
		line += " " + string(version.bytes)
	}
	for _, summary := range e[5] {
		for _, value := range message(t, summary.bytes)[1] {
			line += " " + readValue(t, message(t, value.bytes))
		}
	}
	return line
}

func readValue(t *testing.T, v fields) string {
	tag := string(v[1][0].bytes)
	if v[9] == nil {
		return fmt.Sprintf("%s=%v", tag, math.Float32frombits(uint32(v.number(2))))
	}
	plugin := message(t, message(t, v[9][0].bytes)[1][0].bytes)
	text := fmt.Sprintf("%s of %s:", tag, plugin[1][0].bytes)
	hparams := message(t, plugin[2][0].bytes)
	if hparams[4] != nil {
		return fmt.Sprintf("%s status %d", text, message(t, hparams[4][0].bytes).number(1))
	}
	start := message(t, hparams[3][0].bytes)
	var settings []string
	for _, entry := range start[1] {
		entry := message(t, entry.bytes)
		value := message(t, entry[2][0].bytes)
		text := fmt.Sprint(math.Float64frombits(value.number(2)))
		if value[3] != nil {
			text = string(value[3][0].bytes)
		}
		settings = append(settings, fmt.Sprintf("%s=%s", entry[1][0].bytes, text))
	}
	slices.Sort(settings)
	return fmt.Sprintf("%s %s, group %s", text, strings.Join(settings, " "), start[4][0].bytes)
}

// fields are those of a message, by number.
type fields map[protowire.Number][]field

type field struct {
	number uint64
	bytes  []byte
}

func (f fields) number(n protowire.Number) uint64 {
	if f[n] == nil {
		return 0
	}
	return f[n][0].number
}

func message(t *testing.T, data []byte) fields {
	all := fields{}
	for len(data) > 0 {
		n, kind, size := protowire.ConsumeTag(data)
		if size < 0 {
			t.Fatal(protowire.ParseError(size))
		}
		data = data[size:]
		var f field
		switch kind {
		case protowire.VarintType:
			f.number, size = protowire.ConsumeVarint(data)
		case protowire.Fixed64Type:
			f.number, size = protowire.ConsumeFixed64(data)
		case protowire.Fixed32Type:
			var x uint32
			x, size = protowire.ConsumeFixed32(data)
			f.number = uint64(x)
		case protowire.BytesType:
			f.bytes, size = protowire.ConsumeBytes(data)
		default:
			t.Fatalf("field %d has type %d", n, kind)
		}
		if size < 0 {
			t.Fatal(protowire.ParseError(size))
		}
		data = data[size:]
		all[n] = append(all[n], f)
	}
	return all
}
