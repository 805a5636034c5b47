"""
A table of mixed columns
========================

Used bicycles: prices, sizes, brands, a column with gaps and one of truth values. :func:`nnkit.tabular` gives a network
that takes such a table as it is, and the options of a training that is good without tuning. Brands become columns of
their own, gaps are filled in and flagged, and all of it is saved with the network.
"""

import io

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

import nnkit

rng = np.random.default_rng(0)
n = 1200
table = pd.DataFrame({
    "brand": rng.choice(["Rabe", "Stadtrad", "Falke", "Velox"], n, p=[0.4, 0.3, 0.2, 0.1]),
    "frame": rng.choice(["steel", "aluminium", "carbon"], n),
    "age": rng.gamma(2.0, 3.0, n).round(1),
    "kilometres": rng.lognormal(8, 1, n).round(),
    "electric": rng.uniform(size=n) < 0.3,
})  # fmt: skip
new_price = table["brand"].map({"Rabe": 700, "Stadtrad": 500, "Falke": 1300, "Velox": 2600}).to_numpy(float)
new_price = new_price * np.where(table["frame"] == "carbon", 1.8, 1) + 1400 * table["electric"]
price = new_price * 0.85 ** table["age"] * np.exp(-table["kilometres"] / 60000) + rng.normal(0, 40, n)
price = price.to_numpy().clip(20)
table.loc[rng.uniform(size=n) < 0.2, "kilometres"] = np.nan  # not every seller says

X, y, X_test, y_test = nnkit.data.split(table, price, seed=0)
net, options = nnkit.tabular(X, y, hidden=[64, 64], seed=0)
net.fit(X, y, **options | {"epochs": 128, "progress": False})

print(net.preprocessing)
error = float(np.median(np.abs(net.predict(X_test) - y_test)))
print(f"R² {net.score(X_test, y_test):.3f}, median error {error:.0f} €, of prices around {np.median(y_test):.0f} €")

###############################################################################
# The file holds the encoding, too: names, categories and numbers, without pickle. Columns are matched by name, and a
# brand that was not there, or a missing number, is no error.

file = io.BytesIO()
net.save(file)
loaded = nnkit.load(file.getvalue())
offer = pd.DataFrame({"age": [2.0, 2.0], "electric": [True, True], "frame": "steel", "brand": ["Falke", "Unbekannt"],
                      "kilometres": [3000.0, None]})  # fmt: skip
print("offers:", ", ".join(f"{value:.0f} €" for value in loaded.predict(offer)))

###############################################################################
# What does a year cost? Only the age changes; all else is as in the tested bicycles of each brand.

figure, axes = plt.subplots(figsize=(6, 4))
years = np.arange(0, 16)
for brand, rows in X_test.groupby("brand"):
    curve = [float(np.median(net.predict(rows.assign(age=float(year))))) for year in years]
    axes.plot(years, curve, label=brand)
axes.set(xlabel="age in years", ylabel="median predicted price in €", ylim=(0, None))
axes.legend(frameon=False)
figure.tight_layout()
