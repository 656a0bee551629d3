from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("teams", "0003_key_terms"),
    ]

    operations = [
        migrations.AddField(
            model_name="apikey",
            name="ceilings",
            field=models.JSONField(
                blank=True,
                default=dict,
                help_text="What its maker may not pass: see ceilings.py.",
            ),
        ),
    ]
