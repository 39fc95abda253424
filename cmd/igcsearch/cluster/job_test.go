package cluster

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// environment makes a getenv of pairs "KEY=value".
func environment(pairs ...string) func(string) string {
	return func(key string) string {
		for _, p := range pairs {
			if k, v, _ := strings.Cut(p, "="); k == key {
				return v
			}
		}
		return ""
	}
}

func TestJobName(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		want string
		env  []string
	}{
		{"", nil},
		{"", []string{"HOSTNAME=n1"}},
		{"slurm 123", []string{"SLURM_JOB_ID=123", "SLURM_PROCID=0"}},
		{"slurm 123_0", []string{
			"SLURM_JOB_ID=124", "SLURM_ARRAY_JOB_ID=123", "SLURM_ARRAY_TASK_ID=0", "SLURM_PROCID=0",
		}},
		{"slurm 123.0", []string{"SLURM_JOB_ID=123", "SLURM_NTASKS=2", "SLURM_PROCID=0"}},
		{"slurm 123_4.5 restart 2", []string{
			"SLURM_JOB_ID=129", "SLURM_ARRAY_JOB_ID=123", "SLURM_ARRAY_TASK_ID=4",
			"SLURM_NTASKS=8", "SLURM_PROCID=5", "SLURM_RESTART_COUNT=2",
		}},
		{"slurm 123", []string{"SLURM_JOB_ID=123", "SLURM_NTASKS=1", "SLURM_PROCID=0", "SLURM_RESTART_COUNT=0"}},
		{"slurm 7", []string{"SLURM_JOB_ID=7", "KUBERNETES_SERVICE_HOST=10.0.0.1", "HOSTNAME=pod"}},
		{"kubernetes fig3a-2-x7kqp", []string{"KUBERNETES_SERVICE_HOST=10.0.0.1", "HOSTNAME=fig3a-2-x7kqp"}},
	} {
		if got := JobName(environment(c.env...)); got != c.want {
			t.Errorf("JobName of %q is %q, want %q", c.env, got, c.want)
		}
	}
}

// fakeSqueue makes a program that writes its arguments to the file calls, a line
// for each call, and then runs the shell commands.
func fakeSqueue(t *testing.T, commands string) (program, calls string) {
	t.Helper()
	dir := t.TempDir()
	program, calls = filepath.Join(dir, "squeue"), filepath.Join(dir, "calls")
	text := "#!/bin/sh\necho \"$@\" >>'" + calls + "'\n" + commands + "\n"
	// os.WriteFile would not do: a process that another test starts meanwhile
	// inherits the open file, and a file that is open for writing cannot be run.
	write := exec.Command("sh", "-c", `cat >"$0" && chmod +x "$0"`, program)
	write.Stdin = strings.NewReader(text)
	if out, err := write.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return program, calls
}

func readCalls(t *testing.T, calls string) []string {
	t.Helper()
	text, err := os.ReadFile(calls)
	if os.IsNotExist(err) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSpace(string(text)), "\n")
}

// TestJobEnd reads what squeue 22.05 prints for %L, and the variable that later
// versions of Slurm set.
func TestJobEnd(t *testing.T) {
	program, calls := fakeSqueue(t, `case "$2" in
--jobs=1_0) echo 1-02:03:04 ;;
--jobs=2) echo 1:00 ;;
--jobs=3) echo UNLIMITED ;;
--jobs=4) echo NOT_SET ;;
--jobs=7) echo INVALID ;;
--jobs=5) echo "slurm_load_jobs error: Invalid job id specified" >&2; exit 1 ;;
esac`)
	t.Setenv("PATH", filepath.Dir(program)+":"+os.Getenv("PATH"))
	for _, c := range []struct {
		env  []string
		want time.Duration // from now; -1: unknown
	}{
		{
			[]string{"SLURM_JOB_ID=9", "SLURM_ARRAY_JOB_ID=1", "SLURM_ARRAY_TASK_ID=0"},
			26*time.Hour + 3*time.Minute + 4*time.Second,
		},
		{[]string{"SLURM_JOB_ID=2"}, time.Minute},
		{[]string{"SLURM_JOB_ID=7"}, 0}, // it is over
		{[]string{"SLURM_JOB_ID=3"}, -1},
		{[]string{"SLURM_JOB_ID=4"}, -1},
		{[]string{"SLURM_JOB_ID=5"}, -1},
		{[]string{"SLURM_JOB_ID=6"}, -1}, // squeue prints nothing
	} {
		before := time.Now()
		end, ok := JobEnd(t.Context(), environment(c.env...))
		after := time.Now()
		if ok != (c.want >= 0) {
			t.Errorf("JobEnd of %q: %v, %v", c.env, end, ok)
		} else if ok && (end.Before(before.Add(c.want)) || end.After(after.Add(c.want))) {
			t.Errorf("JobEnd of %q: in %v, want %v", c.env, end.Sub(before), c.want)
		}
	}
	asked := len(readCalls(t, calls))
	if asked != 7 {
		t.Errorf("squeue was called %d times for 7 jobs", asked)
	}
	env := environment("SLURM_JOB_ID=2", "SLURM_JOB_END_TIME=1795390702")
	if end, ok := JobEnd(t.Context(), env); !ok || end.Unix() != 1795390702 {
		t.Errorf("JobEnd with SLURM_JOB_END_TIME: %v, %v", end, ok)
	}
	if end, ok := JobEnd(t.Context(), environment("HOME=/root")); ok {
		t.Errorf("JobEnd outside Slurm: %v", end)
	}
	if n := len(readCalls(t, calls)); n != asked {
		t.Errorf("squeue was called where it was not needed")
	}
}

// TestJobsGone reads lines as squeue 22.05 prints them.
func TestJobsGone(t *testing.T) {
	t.Parallel()
	program, calls := fakeSqueue(t, `cat <<END
7_3                                     7                   PENDING             0         
7_2                                     10                  PENDING             1         
7_1                                     9                   RUNNING             1         
7_0                                     8                   COMPLETING          1         
20                                      20                  SUSPENDED           0         
21                                      21                  COMPLETED           0         
22                                      22                  NODE_FAIL           0         
23+1                                    24                  CONFIGURING         N/A       
END`)
	j := &Jobs{program: program}
	for _, c := range []struct {
		job  string
		gone bool
	}{
		{"slurm 7_1 restart 1", false},
		{"slurm 7_1", true},    // another process runs there now
		{"slurm 7_0", false},   // counted as requeued, and ending
		{"slurm 7_2", true},    // requeued, and waiting
		{"slurm 7_3", true},    // never started
		{"slurm 7_4", true},    // forgotten
		{"slurm 7_1.3", true},  // a task of the same
		{"slurm 20", false},    // its processes are stopped, and may go on
		{"slurm 20.15", false}, //
		{"slurm 21", true},
		{"slurm 22", true},
		{"slurm 24", false}, // part of a heterogeneous job
		{"slurm 25", true},
		{"kubernetes fig3a-0", true},
		{"", true},
		{"slurm", true},
	} {
		if gone := j.Gone(t.Context(), c.job); gone != c.gone {
			t.Errorf("job %q is gone: %v, want %v", c.job, gone, c.gone)
		}
	}
	// It was called once for each new number, and always with all numbers so far.
	list := readCalls(t, calls)
	if len(list) != 6 {
		t.Errorf("squeue was called %d times for 6 numbers:\n%s", len(list), strings.Join(list, "\n"))
	}
	for _, number := range []string{"7", "20", "21", "22", "24", "25"} {
		if !strings.Contains(list[len(list)-1], number) {
			t.Errorf("the last call is not about job %s: %s", number, list[len(list)-1])
		}
	}
	j.time = j.time.Add(-jobsAge)
	if j.Gone(t.Context(), "slurm 20"); len(readCalls(t, calls)) != 7 {
		t.Error("an old answer was not asked for again")
	}
}

// TestJobsNoAnswer holds Gone to what counts if squeue says nothing of a job.
func TestJobsNoAnswer(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		what, commands string
		gone           bool
	}{
		{"the only job is forgotten", `echo "slurm_load_jobs error: Invalid job id specified" >&2; exit 1`, true},
		{"the controller is down",
			`echo "slurm_load_jobs error: Unable to contact slurm controller (connect failure)" >&2; exit 1`, false},
		{"it is killed", `kill -9 $$`, false},
	} {
		program, _ := fakeSqueue(t, c.commands)
		if gone := (&Jobs{program: program}).Gone(t.Context(), "slurm 5"); gone != c.gone {
			t.Errorf("%s: gone: %v, want %v", c.what, gone, c.gone)
		}
	}
	none := &Jobs{program: "no-such-squeue"}
	if !none.Gone(t.Context(), "slurm 5") {
		t.Error("without squeue a job is not gone")
	}
}
