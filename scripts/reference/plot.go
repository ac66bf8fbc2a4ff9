package main

import (
	"fmt"
	"html"
	"math"
	"strings"
)

// plot is a picture with two logarithmic axes.
type plot struct {
	Title  string  `json:"title"`
	X      string  `json:"x"` // with its unit
	Y      string  `json:"y"`
	Binary bool    `json:"binary,omitempty"` // x is in bytes
	Curves []curve `json:"curves"`
}

type curve struct {
	Name   string       `json:"name"`
	Dashed bool         `json:"dashed,omitempty"`
	Points [][2]float64 `json:"points"`
}

const (
	width, height            = 760, 440
	left, right, top, bottom = 80, 190, 40, 60
)

// colours are told apart by most people.
func colours() []string {
	return []string{"#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000"}
}

// axis maps values to pixels.
type axis struct {
	low, high float64 // logarithms
	from, to  float64 // pixels
}

func (a axis) at(v float64) float64 {
	return a.from + (math.Log10(v)-a.low)/(a.high-a.low)*(a.to-a.from)
}

// span is from power to power of ten around all values.
func (p plot) span(coordinate int) (low, high float64) {
	low, high = math.Inf(1), math.Inf(-1)
	for _, c := range p.Curves {
		for _, point := range c.Points {
			if v := point[coordinate]; v > 0 {
				low, high = min(low, math.Log10(v)), max(high, math.Log10(v))
			}
		}
	}
	if low > high {
		return 0, 1
	}
	if coordinate == 1 {
		low, high = math.Floor(low), math.Ceil(high)
	}
	if high-low < 0.1 {
		low, high = low-0.5, high+0.5
	}
	return low, high
}

// svg draws the picture. Values that are not above zero are left out.
func (p plot) svg() string {
	var out strings.Builder
	say := func(format string, args ...any) { fmt.Fprintf(&out, format+"\n", args...) }
	text := func(x, y float64, anchor, more, content string) {
		say(`<text x="%.1f" y="%.1f" text-anchor="%s"%s>%s</text>`, x, y, anchor, more, html.EscapeString(content))
	}
	lowX, highX := p.span(0)
	lowY, highY := p.span(1)
	x := axis{lowX, highX, left, width - right}
	y := axis{lowY, highY, height - bottom, top}
	say(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">`, width, height)
	say(`<rect width="%d" height="%d" fill="white"/>`, width, height)
	text((x.from+x.to)/2, top-16, "middle", ` font-size="15"`, p.Title)
	text((x.from+x.to)/2, height-14, "middle", "", p.X)
	text(18, (y.from+y.to)/2, "middle", fmt.Sprintf(` transform="rotate(-90 18 %.1f)"`, (y.from+y.to)/2), p.Y)
	for _, v := range ticks(lowX, highX, p.Binary) {
		say(`<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="#ddd"/>`, x.at(v), y.from, x.at(v), y.to)
		label := short(v)
		if p.Binary {
			label = size(int64(v))
		}
		text(x.at(v), y.from+18, "middle", "", label)
	}
	for _, v := range ticks(lowY, highY, false) {
		say(`<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="#ddd"/>`, x.from, y.at(v), x.to, y.at(v))
		text(x.from-8, y.at(v)+4, "end", "", short(v))
	}
	say(`<rect x="%d" y="%d" width="%d" height="%d" fill="none" stroke="#888"/>`, left, top, width-left-right, height-top-bottom)
	for i, c := range p.Curves {
		style := fmt.Sprintf(`stroke="%s"`, colours()[i%len(colours())])
		if c.Dashed { // belongs to the curve before it
			style = fmt.Sprintf(`stroke="%s" stroke-dasharray="5 4"`, colours()[max(i-1, 0)%len(colours())])
		}
		var path strings.Builder
		for _, point := range c.Points {
			if point[0] > 0 && point[1] > 0 {
				fmt.Fprintf(&path, "%.1f,%.1f ", x.at(point[0]), y.at(point[1]))
				say(`<circle cx="%.1f" cy="%.1f" r="2.5" fill="none" %s/>`, x.at(point[0]), y.at(point[1]), style)
			}
		}
		say(`<polyline points="%s" fill="none" stroke-width="2" %s/>`, strings.TrimSpace(path.String()), style)
		line := float64(top + 14 + 20*i)
		say(`<line x1="%d" y1="%.1f" x2="%d" y2="%.1f" stroke-width="2" %s/>`, width-right+12, line, width-right+36, line, style)
		text(width-right+42, line+4, "start", "", c.Name)
	}
	say(`</svg>`)
	return out.String()
}

// ticks are powers of ten, or every 16th power of two, between two logarithms.
func ticks(low, high float64, binary bool) []float64 {
	base := 10.0
	if binary {
		base = 16
	}
	var values []float64
	for e := math.Ceil(low/math.Log10(base) - 1e-9); e*math.Log10(base) <= high+1e-9; e++ {
		values = append(values, math.Pow(base, e))
	}
	return values
}

// short writes 0.001, 1, 1000, 1M.
func short(v float64) string {
	switch {
	case v >= 1e6:
		return fmt.Sprintf("%gM", v/1e6)
	case v >= 1e3:
		return fmt.Sprintf("%gk", v/1e3)
	}
	return fmt.Sprintf("%g", v)
}
