"""Pictures for asset metadata."""

import base64
import io

import dagster as dg
import pyarrow as pa


def price_chart(bars: pa.Table, title: str) -> dg.MarkdownMetadataValue:
    """Close with its averages and bands, RSI, and MACD with its signal, as a small picture.

    `bars` has open_time, close and the indicators, in order of time.
    """
    # Without pyplot: it keeps global state, and runs may share a process.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = {name: bars[name].to_pylist() for name in bars.column_names}
    columns = {name: [float("nan") if v is None else v for v in values] for name, values in columns.items()}
    times = columns["open_time"]
    figure = Figure(figsize=(8, 5), dpi=80, layout="constrained")
    FigureCanvasAgg(figure)
    price, strength, momentum = figure.subplots(3, 1, sharex=True, height_ratios=[3, 1, 1])
    price.set_title(title, fontsize=10)
    price.fill_between(times, columns["bb_lower"], columns["bb_upper"], alpha=0.15, label="Bollinger bands")
    price.plot(times, columns["close"], linewidth=1, label="close")
    price.plot(times, columns["sma_20"], linewidth=0.8, label="SMA 20")
    price.plot(times, columns["ema_50"], linewidth=0.8, label="EMA 50")
    price.legend(fontsize=7, loc="upper left")
    strength.plot(times, columns["rsi_14"], linewidth=0.8)
    strength.axhspan(30, 70, alpha=0.1)
    strength.set(ylim=(0, 100), ylabel="RSI 14")
    momentum.plot(times, columns["macd"], linewidth=0.8)
    momentum.plot(times, columns["macd_signal"], linewidth=0.8)
    momentum.set_ylabel("MACD")
    for axis in (price, strength, momentum):
        axis.tick_params(labelsize=7)
    sink = io.BytesIO()
    figure.savefig(sink, format="png")
    encoded = base64.b64encode(sink.getvalue()).decode()
    return dg.MetadataValue.md(f"![{title}](data:image/png;base64,{encoded})")
