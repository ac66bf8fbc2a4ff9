package cli

import (
	"context"
	"io"
	"os"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
)

// progress is a bar on the terminal. A nil progress shows nothing.
type progress struct {
	container *mpb.Progress
	bar       *mpb.Bar
}

// newProgress shows a bar on stderr if that is a terminal. The size is below
// zero when it is not known.
func (a *app) newProgress(ctx context.Context, name string, size int64) *progress {
	if !isTerminal(a.stderr) {
		return nil
	}
	container := mpb.NewWithContext(ctx, mpb.WithOutput(a.stderr), mpb.WithWidth(40))
	// A total given here would complete the bar by itself, and a source that
	// turned out shorter would never end it.
	bar := container.AddBar(0,
		mpb.PrependDecorators(decor.Name(oneLine(name), decor.WCSyncSpaceR), decor.CountersKibiByte("% .1f / % .1f", decor.WCSyncSpace)),
		mpb.AppendDecorators(decor.Percentage(decor.WCSyncSpace), decor.AverageSpeed(decor.SizeB1024(0), "% .1f", decor.WCSyncSpace)),
	)
	bar.SetTotal(max(size, 0), false)
	return &progress{container: container, bar: bar}
}

func (p *progress) add(bytes int64) {
	if p != nil {
		p.bar.IncrInt64(bytes)
	}
}

// end leaves a full bar behind when all went well, and none otherwise.
func (p *progress) end(err error) {
	if p == nil {
		return
	}
	if err == nil {
		p.bar.SetTotal(-1, true) // what was counted is all there was
	} else {
		p.bar.Abort(true)
	}
	p.container.Wait()
}

// isTerminal also takes the null device for one, which does no harm.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
