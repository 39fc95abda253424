package download_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"igcsearch/store/download"
)

// large is more than the buffers between a server and a client hold.
const large = 32 << 20

// shop serves files whose names are their keys.
type shop struct {
	*httptest.Server
	made  atomic.Int32
	begun chan string   // has the key of each file that is being made
	hold  chan struct{} // what is being made waits for it, unless it is nil
	ended chan error    // of each request
}

func open(t *testing.T, clients, files int, patience time.Duration) *shop {
	t.Helper()
	t.Setenv("TMPDIR", t.TempDir())
	s := &shop{begun: make(chan string, 100), ended: make(chan error, 100)}
	sender := download.NewSender(clients, files)
	s.Server = httptest.NewServer(download.Steady(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		err := sender.Send(w, r, r.URL.Path, func(ctx context.Context, path string) error {
			s.made.Add(1)
			s.begun <- r.URL.Path
			if s.hold != nil {
				select {
				case <-s.hold:
				case <-ctx.Done():
					return ctx.Err()
				}
			}
			switch r.URL.Path {
			case "/broken":
				os.WriteFile(path, []byte("half"), 0o600)
				return errors.New("the disk is full")
			case "/large":
				return os.WriteFile(path, make([]byte, large), 0o600)
			}
			return os.WriteFile(path, fmt.Appendf(nil, "contents of %s", r.URL.Path), 0o600)
		})
		if err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
		}
		s.ended <- err
	}), patience))
	t.Cleanup(s.Close)
	t.Cleanup(func() {
		s.Close()
		left, err := os.ReadDir(os.Getenv("TMPDIR"))
		if err != nil || len(left) > 0 {
			t.Errorf("temporary files are left: %v, %v", left, err)
		}
	})
	return s
}

func (s *shop) get(t *testing.T, path string, header ...string) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), "GET", s.URL+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Error(err)
		return &http.Response{}, ""
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Error(err)
	}
	return answer, string(text)
}

// stall asks for a file and takes nothing of it.
func (s *shop) stall(t *testing.T, path string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", path)
	return c
}

// until waits for a message.
func until[T any](t *testing.T, messages <-chan T) (m T) {
	t.Helper()
	select {
	case m = <-messages:
	case <-time.After(time.Minute):
		t.Fatal("nothing happened for a minute")
	}
	return m
}

func TestShare(t *testing.T) {
	t.Run("clients that ask together share one file", func(t *testing.T) {
		s := open(t, 30, 1, time.Minute)
		s.hold = make(chan struct{})
		refused := make(chan *http.Response, 31)
		var all sync.WaitGroup
		var received atomic.Int32
		for range 31 {
			all.Go(func() {
				switch answer, text := s.get(t, "/one"); {
				case text == "contents of /one":
					received.Add(1)
				case answer.StatusCode == http.StatusServiceUnavailable:
					refused <- answer
				default:
					t.Errorf("it is %q", text)
				}
			})
		}
		if answer := until(t, refused); answer.Header.Get("Retry-After") == "" {
			t.Errorf("the one that is too many is not told when to come again: %v", answer.Header)
		}
		close(s.hold)
		all.Wait()
		if n := received.Load(); n != 30 {
			t.Errorf("%d clients received it, want 30", n)
		}
		if n := s.made.Load(); n != 1 {
			t.Errorf("the file was made %d times", n)
		}
	})
}

func TestSlowClients(t *testing.T) {
	t.Run("a client that stops reading holds up nobody and is cut off", func(t *testing.T) {
		s := open(t, 2, 2, 200*time.Millisecond)
		c := s.stall(t, "/large")
		until(t, s.begun)
		if _, text := s.get(t, "/other"); text != "contents of /other" {
			t.Errorf("another client receives %q", text)
		}
		until(t, s.ended)
		until(t, s.ended) // both requests, so the one that stopped reading too
		n, err := io.Copy(io.Discard, c)
		if n >= large || err == nil && n == 0 {
			t.Errorf("it received %d bytes of %d, %v", n, large, err)
		}
	})
	t.Run("a slow client that goes on receives all", func(t *testing.T) {
		const patience = 2 * time.Second
		s := open(t, 1, 1, patience)
		c := s.stall(t, "/large")
		got, begin := 0, time.Now()
		piece := make([]byte, large/40)
		for {
			if time.Since(begin) < patience*3/2 { // longer than one deadline, in many small waits
				<-time.After(patience / 20)
			}
			n, err := io.ReadFull(c, piece)
			got += n
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				break
			}
			if err != nil {
				t.Fatalf("after %d bytes: %v", got, err)
			}
		}
		if got < large {
			t.Errorf("it received %d bytes of %d", got, large)
		}
	})
}

func TestClientsLeave(t *testing.T) {
	t.Run("a client that goes away ends what only it waits for", func(t *testing.T) {
		s := open(t, 1, 1, time.Minute)
		s.hold = make(chan struct{})
		c := s.stall(t, "/one")
		until(t, s.begun)
		c.Close()
		if err := until(t, s.ended); !errors.Is(err, context.Canceled) {
			t.Errorf("the request ends with %v", err)
		}
		close(s.hold)
		if _, text := s.get(t, "/one"); text != "contents of /one" {
			t.Errorf("the next client receives %q", text)
		}
	})
	t.Run("the client that came first may go away", func(t *testing.T) {
		s := open(t, 2, 1, time.Minute)
		s.hold = make(chan struct{})
		first := s.stall(t, "/one")
		until(t, s.begun)
		answers := make(chan string, 2)
		for range 2 { // one of them is too many, so that its answer says that the other is there
			go func() {
				_, text := s.get(t, "/one")
				answers <- text
			}()
		}
		if text := until(t, answers); !strings.Contains(text, "too many downloads") {
			t.Errorf("the third client receives %q", text)
		}
		first.Close()
		close(s.hold)
		if text := until(t, answers); text != "contents of /one" {
			t.Errorf("the second client receives %q", text)
		}
	})
}

func TestAnswers(t *testing.T) {
	t.Run("an error is an answer, not the end of one", func(t *testing.T) {
		s := open(t, 1, 1, time.Minute)
		answer, text := s.get(t, "/broken")
		if answer.StatusCode != http.StatusServiceUnavailable || text != "the disk is full\n" {
			t.Errorf("%s: %q", answer.Status, text)
		}
	})
	t.Run("too many different files are refused", func(t *testing.T) {
		s := open(t, 10, 1, time.Minute)
		s.stall(t, "/large")
		until(t, s.begun)
		if answer, _ := s.get(t, "/one"); answer.StatusCode != http.StatusServiceUnavailable {
			t.Errorf("a second file: %s", answer.Status)
		}
	})
	t.Run("a download goes on where it broke off only with the same contents", func(t *testing.T) {
		s := open(t, 1, 1, time.Minute)
		whole, text := s.get(t, "/one")
		tag := whole.Header.Get("ETag")
		for _, c := range []struct {
			header []string
			status int
			want   string
		}{
			{[]string{"Range", "bytes=9-", "If-Range", tag}, http.StatusPartialContent, text[9:]},
			{[]string{"Range", "bytes=9-", "If-Range", `"other"`}, http.StatusOK, text},
			{[]string{"Range", "bytes=9-"}, http.StatusOK, text},
		} {
			if answer, got := s.get(t, "/one", c.header...); answer.StatusCode != c.status || got != c.want {
				t.Errorf("%v: %s, %q, want %q", c.header, answer.Status, got, c.want)
			}
		}
	})
}
