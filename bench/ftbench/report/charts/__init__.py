"""The charts of a report, as figures: each a Vega-Lite specification made with Altair when it is asked for.

Altair takes half a second to import and a report on a terminal draws nothing: it is imported only
when a chart is drawn.
"""
